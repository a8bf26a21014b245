"""
Reads GPT-2 in transformers' format for train.py and sample.py, and writes it for other tools:
    python data/pretrained.py out-shakespeare/ckpt.pt FOLDER
writes a checkpoint and its tokenizer to a folder that transformers' AutoModelForCausalLM and AutoTokenizer read.
"""
import glob
import json
import os
import sys

if __name__ == '__main__': # as a script: import from the folder above, not from this one
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
from data.prepare import END, byte_bpe, char_codec, check_codec, codec_of, get_codec, stop, tiktoken_bpe
from model import GPT, GPTConfig, UserError, load_checkpoint

ACTIVATIONS = {'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh', 'gelu': 'gelu'} # theirs: ours; OpenAI's weights have the first
SIZES = dict(vocab_size='vocab_size', block_size='n_positions', n_layer='n_layer', n_head='n_head', n_embd='n_embd') # ours: theirs
TRANSPOSED = ('attn.c_attn.weight', 'attn.c_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight') # stored so in transformers' files

def folder_of(model_type):
    """The folder of a GPT-2: model_type itself if it is one, else huggingface_hub's for a hub name such as 'gpt2-xl', fetched once."""
    if os.path.isdir(model_type):
        return model_type
    from huggingface_hub import snapshot_download
    return snapshot_download(model_type, allow_patterns=['config.json', 'tokenizer.json', 'vocab.json', 'merges.txt', 'model*.safetensors'])

def read_pretrained(model_type):
    """
    (arguments for GPTConfig, state for GPT.from_state) of a hub name, or of a folder with config.json and *.safetensors. Raises
    UserError if it cannot be read or is no such GPT-2.
    """
    try:
        from safetensors.torch import load_file
        folder = folder_of(model_type)
        with open(os.path.join(folder, 'config.json'), encoding='utf-8') as f:
            hf = dict(json.load(f))
        state, whole = {}, os.path.join(folder, 'model.safetensors')
        for path in [whole] if os.path.exists(whole) else glob.glob(os.path.join(glob.escape(folder), 'model-*-of-*.safetensors')):
            state |= load_file(path)
        if not state:
            raise FileNotFoundError(f"no model.safetensors in {folder}")
    except Exception as e: # what the hub, its cache and half a file raise is anyone's guess
        missing = 'pip install transformers to read them; ' * isinstance(e, ImportError)
        raise UserError(f"cannot read config.json and model.safetensors of {model_type!r}; {missing}init_from takes a GPT-2 on the hub, a folder "
                        f"with one, or a word that --help lists ({type(e).__name__}: {str(e).split('. ')[0]})") from e
    able = dict(model_type=['gpt2'], layer_norm_epsilon=[1e-5], scale_attn_weights=[True], scale_attn_by_inverse_layer_idx=[False],
                tie_word_embeddings=[True] + [False] * ('lm_head.weight' in state), n_inner=[4 * hf['n_embd']] if type(hf.get('n_embd')) is int else [], activation_function=list(ACTIVATIONS))
    odd = {k: hf[k] for k, v in able.items() if hf.get(k) not in (None, *v)} | {k: 'missing' for k in SIZES.values() if k not in hf}
    if odd:
        raise UserError(f"{model_type} is not a GPT-2 that this model can compute; its config.json has {odd}")
    for name in list(state):
        tensor = state.pop(name).float()
        if not name.endswith(('.attn.bias', '.attn.masked_bias')) and not tensor.isfinite().all(): # half precision may have overflowed
            raise UserError(f"the weights in {name} of {model_type} are not finite numbers")
        if name == 'lm_head.weight' and hf.get('tie_word_embeddings') is False:
            state[name] = tensor
        elif not name.endswith(('.attn.bias', '.attn.masked_bias', 'lm_head.weight')): # causal masks, and the tied head
            name = 'transformer.' + name.removeprefix('transformer.')
            state[name] = tensor.t().contiguous() if name.endswith(TRANSPOSED) and tensor.dim() == 2 else tensor
    return dict(bias=True, activation=ACTIVATIONS[hf.get('activation_function') or 'gelu_new'], **{k: hf[v] for k, v in SIZES.items()}), state

def read_codec(model_type, default=None):
    """
    The codec, as in a meta.pkl, that belongs to read_pretrained's weights: None for GPT-2's BPE, default if the folder has no
    tokenizer. Raises UserError for a tokenizer that is damaged or of another kind.
    """
    path, vocab, merges = (os.path.join(folder_of(model_type), name) for name in ('tokenizer.json', 'vocab.json', 'merges.txt'))
    try:
        if os.path.exists(path):
            with open(path, encoding='utf-8') as f:
                text = f.read()
        elif os.path.exists(vocab) and os.path.exists(merges): # the older format, in two files
            path, bpe = vocab, byte_bpe(vocab, merges)
            bpe.add_special_tokens([END] * (bpe.token_to_id(END) is not None))
            text = bpe.to_str()
        else:
            return default
        tokenizer = json.loads(text)
        ids, kind = tokenizer['model']['vocab'], tokenizer['model']['type']
        if kind == 'WordLevel' and max(map(len, ids)) == 1: # characters, as tokenizer_of has them
            return char_codec(sorted(ids, key=ids.get))
        if kind != 'BPE' or tokenizer['decoder']['type'] != 'ByteLevel':
            raise ValueError(f"a {kind} that is no BPE of bytes, the only kind that is read here")
        ids |= {token['content']: token['id'] for token in tokenizer['added_tokens']}
        if len(ids) == 50257 and [ids.get(token) for token in ('!', '\u0120the', '\u0120gazed', END)] == [0, 262, 50255, 50256]:
            return None # GPT-2's own, by its size and four of its ids
        return codec_of(1 + max(ids.values()), tokenizer='bpe', json=text)
    except Exception as e: # tokenizers raises nothing narrower
        raise UserError(f"{path} is no tokenizer that can be read ({type(e).__name__}: {e})") from e

def check_tokens(model_type, meta, dataset):
    """Raise UserError if read_pretrained's weights come with another tokenizer than the dataset, whose meta.pkl holds meta."""
    theirs = read_codec(model_type, meta)
    def spelled(codec): # codecs that differ may still spell ids alike
        _, decode, n_vocab, end = get_codec(codec)
        return end, [decode([i]) for i in range(min(n_vocab, 1000))]
    if theirs != meta and spelled(theirs) != spelled(meta):
        raise UserError(f"the weights of {model_type} were trained on other tokens than those of dataset {dataset!r}; choose the dataset they had")

def write_pretrained(model, folder, end=None, tokenizer=None):
    """
    Write a GPT whose <|endoftext|> has the id end into folder: config.json, model.safetensors and, with a function tokenizer, the
    tokenizer that it returns. Raises UserError if transformers' GPT-2 cannot compute the model, or the folder cannot be written.
    """
    c = model.config
    if c.rotary or c.ngrams or c.activation not in ACTIVATIONS.values():
        raise UserError("transformers' GPT-2 has no rotary positions and no n-grams, and is written here with GELU only; this model has one of these or another activation")
    try:
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as e:
        raise UserError(f"writing transformers' format needs the package transformers: pip install transformers ({e})") from e
    config = GPT2Config(**{v: getattr(c, k) for k, v in SIZES.items()}, activation_function={v: k for k, v in reversed(ACTIVATIONS.items())}[c.activation],
                        resid_pdrop=c.dropout, embd_pdrop=c.dropout, attn_pdrop=c.dropout, bos_token_id=end, eos_token_id=end,
                        tie_word_embeddings=model.lm_head.weight is model.transformer.wte.weight)
    with torch.device('meta'):
        theirs = GPT2LMHeadModel(config)
    ours = model.state_dict()
    if more := ours.keys() - theirs.state_dict().keys():
        raise UserError(f"transformers' GPT-2 has no {', '.join(sorted(more))}")
    state = {k: ours.get(k, torch.zeros(v.shape)).float().cpu() for k, v in theirs.state_dict().items()} # missing biases are zero
    theirs.load_state_dict({k: v.t().contiguous() if k.endswith(TRANSPOSED) else v for k, v in state.items()}, assign=True)
    theirs.tie_weights()
    try:
        for part in (tokenizer(), theirs) if tokenizer else (theirs,):
            part.save_pretrained(folder)
    except Exception as e: # safetensors has errors of its own
        raise UserError(f"cannot write into {folder} ({e})") from e

def tokenizer_of(codec):
    """The tokenizer of a checkpoint's codec, None being GPT-2's BPE, as transformers' AutoTokenizer will read it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter
    kind, special = check_codec(codec), dict(bos_token=END, eos_token=END)
    if kind == 'char':
        tokenizer, special = Tokenizer(models.WordLevel(codec['stoi'], unk_token=codec['itos'][0])), {}
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated'), decoders.Fuse()
    elif kind == 'bpe':
        tokenizer = Tokenizer.from_str(codec['json'])
    else:
        bpe = tiktoken_bpe(kind.removeprefix('tiktoken:'))
        converter = TikTokenConverter(pattern=bpe._pat_str.replace('}+', '}'), extra_special_tokens=list(bpe._special_tokens)) # there {1,3}+ repeats
        converter.load_tiktoken_bpe = lambda _: bpe._mergeable_ranks | {text.encode(): i for text, i in bpe._special_tokens.items()}
        tokenizer = converter.converted()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)

if __name__ == '__main__':
    if len(sys.argv) != 3 or sys.argv[1] in ('-h', '--help'):
        stop(f"got {' '.join(sys.argv[1:]) or 'nothing'}; give a checkpoint and a folder to write, as in python data/pretrained.py out/ckpt.pt out-hf")
    try:
        checkpoint = load_checkpoint(sys.argv[1])
        if os.path.isfile(sys.argv[2]):
            stop(f"{sys.argv[2]} is a file; give a folder to write")
        if not checkpoint.get('codec') and checkpoint['model_args'].get('vocab_size', 50257) < 50257:
            stop(f"{sys.argv[1]} does not say what its {checkpoint['model_args']['vocab_size']} ids stand for, as nanoGPT's files of characters do not: go on "
                 "training from it with --init_from=resume for an iteration, which writes that down")
        model, codec = GPT.from_checkpoint(checkpoint), checkpoint.get('codec')
        write_pretrained(model, sys.argv[2], get_codec(codec)[3], lambda: tokenizer_of(codec))
    except (ValueError, OSError, ImportError) as e: # UserErrors too are ValueErrors
        stop(e)
    print(f"{sys.argv[2]}: a {GPTConfig(**checkpoint['model_args'])} for transformers")
