"""Weights in transformers' format: equal logits, what is recorded of them, and what is refused. Nothing is fetched."""
import json
import os
import pickle
import shutil
import sys

import pytest
import torch
from conftest import TINY, make_dataset, run, train

from model import GPT, GPTConfig, UserError, load_checkpoint

transformers = pytest.importorskip('transformers', reason="transformers is not installed")

RECORDED = {'gelu_new': 'gelu_tanh', 'gelu': 'gelu'} # the activation that a checkpoint names


def make_gpt2(activation='gelu_new', vocab_size=61, n_embd=32):
    """A random GPT-2 of transformers; no parameter is 0 or 1, as initialised ones are."""
    config = transformers.GPT2Config(vocab_size=vocab_size, n_positions=32, n_embd=n_embd, n_layer=2, n_head=2,
                                     activation_function=activation, bos_token_id=vocab_size - 1, eos_token_id=vocab_size - 1)
    torch.manual_seed(0)
    gpt2 = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in gpt2.parameters():
            p += 0.4 * torch.randn_like(p) # so much that the two GELUs are told apart: by 2e-3 in the logits
    return gpt2


@pytest.fixture(scope='module', params=RECORDED)
def saved(request, tmp_path_factory):
    """A GPT-2 and the folder it was saved in, not to be changed, for each activation."""
    folder, gpt2 = tmp_path_factory.mktemp('gpt2'), make_gpt2(request.param)
    gpt2.save_pretrained(folder)
    return gpt2, folder


@pytest.fixture(scope='module')
def bpe_style(tmp_path_factory):
    """A dataset without meta.pkl, as GPT-2 BPE has none; its ids are below 29."""
    folder = make_dataset(tmp_path_factory.mktemp('data') / 'bpe')
    (folder / 'meta.pkl').unlink()
    return folder


@pytest.fixture
def folder(tmp_path):
    """A saved GPT-2 to damage."""
    make_gpt2().save_pretrained(tmp_path / 'gpt2')
    return tmp_path / 'gpt2'


@torch.no_grad()
def assert_equal_logits(gpt2, model, T=32):
    ids = torch.randint(61, (2, T))
    torch.testing.assert_close(model.eval()(ids, ids)[0], gpt2(ids).logits, atol=1e-4, rtol=0)


def change_config(folder, **values):
    path = folder / 'config.json'
    config = json.loads(path.read_text(encoding='utf-8'))
    path.write_text(json.dumps({**config, **values}), encoding='utf-8')


def assert_refused(name, *words, override=None):
    """from_pretrained raises one sentence with these words in it."""
    with pytest.raises(ValueError) as e:
        GPT.from_pretrained(str(name), override)
    message = str(e.value)
    assert '\n' not in message and len(message) < 500, message
    for word in words:
        assert str(word) in message, (word, message)


def test_equal_logits(saved):
    gpt2, folder = saved
    model = GPT.from_pretrained(folder)
    assert_equal_logits(gpt2, model)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert all(p.requires_grad and p.is_contiguous() for p in model.parameters())


def test_greedy_text_is_theirs(saved):
    gpt2, folder = saved
    idx = torch.randint(60, (3, 5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = gpt2.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=27, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert theirs.shape == (3, 32) and len(set(theirs[:, 5:].flatten().tolist())) > 3
    assert torch.equal(GPT.from_pretrained(folder).eval().generate(idx, 27, temperature=0), theirs)


def test_sharded_weights(tmp_path):
    gpt2 = make_gpt2()
    gpt2.save_pretrained(tmp_path, max_shard_size='20KB')
    assert len(list(tmp_path.glob('*.safetensors'))) > 1
    assert_equal_logits(gpt2, GPT.from_pretrained(tmp_path))


def test_a_config_without_sizes_is_refused(folder):
    for harm in (dict(n_embd=None), dict(n_embd={})):
        text = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        (folder / 'config.json').write_text(json.dumps(dict(text, **harm)), encoding='utf-8')
        with pytest.raises(UserError, match='n_embd|n_inner'):
            GPT.from_pretrained(folder)


def test_names_as_in_openais_files(folder):
    """On the hub they begin with h. or w, and masks and the head may be there too."""
    from safetensors.torch import load_file, save_file
    state = {k.removeprefix('transformer.'): v for k, v in load_file(folder / 'model.safetensors').items()}
    state |= {'h.0.attn.bias': torch.ones(1, 1, 32, 32), 'h.0.attn.masked_bias': torch.tensor(-1e4), 'lm_head.weight': state['wte.weight'].clone()}
    save_file(state, folder / 'model.safetensors')
    assert_equal_logits(make_gpt2(), GPT.from_pretrained(folder))


def test_half_precision_weights(tmp_path):
    gpt2 = make_gpt2().to(torch.bfloat16)
    gpt2.save_pretrained(tmp_path)
    model = GPT.from_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_equal_logits(gpt2.float(), model)


def test_finetuning_records_the_activation(saved, bpe_style, tmp_path):
    """An update at a learning rate of 0: what is saved is the same function, whoever loads it."""
    gpt2, folder = saved
    train(bpe_style, tmp_path, init_from=folder, max_iters=1, learning_rate=0, min_lr=0, dropout=0.1)
    checkpoint = torch.load(tmp_path / 'ckpt.pt', weights_only=True)
    assert checkpoint['activation'] == RECORDED[gpt2.config.activation_function] # nanoGPT's model_args have no such key
    assert checkpoint['model_args'] == dict(n_layer=2, n_head=2, n_embd=32, block_size=TINY['block_size'], bias=True, vocab_size=61, dropout=0.1)
    checkpoint = load_checkpoint(tmp_path / 'ckpt.pt')
    assert_equal_logits(gpt2, GPT.from_checkpoint(checkpoint), T=TINY['block_size'])
    train(bpe_style, tmp_path, init_from='resume', max_iters=2, learning_rate=0, min_lr=0)
    checkpoint = load_checkpoint(tmp_path / 'ckpt.pt')
    assert checkpoint['iter_num'] == 2
    assert_equal_logits(gpt2, GPT.from_checkpoint(checkpoint), T=TINY['block_size'])


def test_finetuning_takes_the_block_size_of_the_weights(folder, bpe_style, tmp_path):
    """val.bin has fewer tokens than train.py's own 1024, but more than the 32 positions there are."""
    settings = {k: v for k, v in TINY.items() if k != 'block_size'} | dict(dataset=bpe_style, out_dir=tmp_path, init_from=folder, max_iters=1)
    result = run('train.py', **settings)
    assert result.code == 0 and load_checkpoint(tmp_path / 'ckpt.pt')['model_args']['block_size'] == 32, result.err
    short = make_dataset(tmp_path / 'short', n_val=30)
    (short / 'meta.pkl').unlink()
    run('train.py', **settings | dict(dataset=short)).refused('val.bin has 30 tokens, fewer than block_size 32')


def test_only_dropout_is_overridden(folder):
    assert GPT.from_pretrained(folder).config.dropout == 0.0
    assert GPT.from_pretrained(folder, dict(dropout=0.1)).transformer.h[0].mlp.dropout.p == 0.1
    assert_refused(folder, 'bias', override=dict(bias=False))
    assert_refused(folder, 'got n_layer', override=dict(dropout=0.1, n_layer=1))


@pytest.mark.parametrize('key, value', [
    ('model_type', 'gptj'), ('layer_norm_epsilon', 1e-6), ('activation_function', 'relu'), ('n_inner', 100),
    ('scale_attn_by_inverse_layer_idx', True), ('scale_attn_weights', False), ('tie_word_embeddings', False)])
def test_other_models_are_refused(folder, key, value):
    change_config(folder, **{key: value})
    assert_refused(folder, folder, value)


@pytest.mark.parametrize('key, value', [('n_layer', 3), ('n_layer', 1), ('vocab_size', 64), ('n_positions', 33), ('n_head', 3)])
def test_weights_of_another_shape_are_refused(folder, key, value):
    change_config(folder, **{key: value})
    assert_refused(folder, value)


def test_unreadable_folders_are_refused(folder, tmp_path):
    (tmp_path / 'empty').mkdir()
    assert_refused(tmp_path / 'empty', 'empty', 'config.json')
    from safetensors.torch import load_file, save_file
    weights = folder / 'model.safetensors'
    data = weights.read_bytes()
    save_file(load_file(weights) | {'transformer.ln_f.weight': torch.full((32,), torch.inf)}, weights)
    assert_refused(folder, 'transformer.ln_f.weight', 'finite')
    weights.write_bytes(data[:len(data) // 2])
    assert_refused(folder, folder, 'safetensors')
    weights.unlink()
    assert_refused(folder, folder, 'safetensors')


@pytest.mark.parametrize('text', ['{"n_layer": ', '[]', '{}', '{"model_type": "gpt2"}'])
def test_unreadable_configs_are_refused(folder, text):
    (folder / 'config.json').write_text(text, encoding='utf-8')
    assert_refused(folder, folder, 'config.json')


def test_another_kind_of_config_is_named(folder):
    (folder / 'config.json').write_text('{"model_type": "llama", "hidden_size": 64}', encoding='utf-8')
    assert_refused(folder, folder, 'llama')


def test_scripts_refuse_in_one_line(folder, bpe_style, tmp_path):
    change_config(folder, model_type='gptj')
    tiny = {**TINY, 'dataset': bpe_style, 'out_dir': tmp_path}
    run('train.py', **{**tiny, 'init_from': folder}).refused('gptj')
    run('sample.py', init_from=folder, device='cpu').refused('gptj')
    run('train.py', **{**tiny, 'init_from': 'gpt2-nonesuch'}).refused('gpt2-nonesuch')
    run('sample.py', init_from='gpt2-nonesuch', device='cpu').refused('gpt2-nonesuch')
    assert not (tmp_path / 'metrics.jsonl').exists()


def test_a_tokenizer_that_does_not_fit_is_refused(folder):
    run('sample.py', init_from=folder, device='cpu').refused('vocabulary of 61', str(folder / 'tokenizer.json'), 'is missing')
    for text, *words in ((json.dumps({'model': {'type': 'BPE', 'vocab': {'a': 60}}, 'decoder': {'type': 'Metaspace'}, 'added_tokens': []}), 'no BPE of bytes'),
                         ('{"model": {', 'no tokenizer that can be read'), ('{"model": {"vocab": []}}', 'no tokenizer that can be read'),
                         (json.dumps({'model': {'type': 'Unigram', 'vocab': {'ab': 1}}}), 'Unigram that is no BPE of bytes'),
                         (json.dumps({'model': {'type': 'BPE', 'vocab': {'a': 61}}, 'decoder': {'type': 'ByteLevel'}, 'added_tokens': []}), 'with one of 62')):
        (folder / 'tokenizer.json').write_text(text, encoding='utf-8')
        run('sample.py', init_from=folder, device='cpu').refused(str(folder / 'tokenizer.json'), *words)


def test_ids_beyond_the_vocabulary_are_refused(folder, tmp_path):
    data = make_dataset(tmp_path / 'data', alphabet=''.join(map(chr, range(64, 164))))
    (data / 'meta.pkl').unlink()
    run('train.py', **{**TINY, 'dataset': data, 'out_dir': tmp_path, 'init_from': folder}).refused('99', '60')


def test_weights_of_other_tokens_are_refused(folder, dataset, tmp_path):
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': folder}).refused('other tokens', str(dataset), 'of 30, not 61')


def test_without_a_package_the_command_that_installs_it_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None) # as if it were not installed
    assert_refused(folder, 'pip install transformers to read them')


def test_unknown_hub_names_are_refused():
    assert_refused('someone/nonesuch', 'someone/nonesuch')
    assert_refused('not a name', 'not a name')


@pytest.mark.parametrize('name', ['someone/tiny', 'tinygpt2'])
def test_hub_names(folder, bpe_style, tmp_path, monkeypatch, name):
    """A name that is already in the hub's cache, laid out by hand: any GPT-2, in all scripts, not just OpenAI's four."""
    from huggingface_hub import constants
    repository = tmp_path / 'hub' / ('models--' + name.replace('/', '--'))
    shutil.copytree(folder, repository / 'snapshots' / ('0' * 40))
    (repository / 'refs').mkdir()
    (repository / 'refs/main').write_text('0' * 40)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    assert_equal_logits(make_gpt2(), GPT.from_pretrained(name))
    train(bpe_style, tmp_path, init_from=name, max_iters=1)


@pytest.mark.skipif(not os.environ.get('TIKTOKEN_CACHE_DIR'), reason="TIKTOKEN_CACHE_DIR, with GPT-2's BPE in it, is not set")
def test_sampling(tmp_path):
    bpe = pytest.importorskip('tiktoken', reason="tiktoken is not installed").get_encoding('gpt2')
    gpt2 = make_gpt2(vocab_size=50257, n_embd=8)
    gpt2.save_pretrained(tmp_path)
    ids = torch.tensor([bpe.encode('What is the answer?')])
    with torch.no_grad():
        for _ in range(10):
            ids = torch.cat([ids, gpt2(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    result = run('sample.py', init_from=tmp_path, start='What is the answer?', num_samples=1, max_new_tokens=10, temperature=0,
                 device='cpu')
    assert result.code == 0, result.err
    assert bpe.decode(ids[0].tolist()) + '\n---------------' in result.out


def ours(bias, activation, vocab_size=61, **more):
    torch.manual_seed(1)
    model = GPT(GPTConfig(32, vocab_size, 2, 2, 32, 0.0, bias, activation, **more)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.4 * torch.randn_like(p)
    return model


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('activation', ['gelu', 'gelu_tanh'])
@pytest.mark.parametrize('vocab_size', [61, 50304]) # 50304 is padded: transformers draws <|endoftext|>, 50256, too
def test_what_we_write_transformers_reads(tmp_path, bias, activation, vocab_size):
    """Equal logits and greedy text, and the same bits after the way there and back."""
    model = ours(bias, activation, vocab_size)
    model.save_pretrained(tmp_path)
    gpt2 = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert gpt2.lm_head.weight is gpt2.transformer.wte.weight and gpt2.config.vocab_size == vocab_size
    assert gpt2.config.eos_token_id == (50256 if vocab_size == 50304 else None) # where transformers ends a text
    assert_equal_logits(gpt2, model)
    idx = torch.randint(61, (1, 5))
    theirs = gpt2.generate(idx, max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert torch.equal(model.generate(idx, 20, temperature=0), theirs)
    back = GPT.from_pretrained(tmp_path)
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())
    assert back.config.activation == activation and (bias or not back.transformer.h[0].mlp.c_fc.bias.any())


def test_a_head_of_its_own_goes_there_and_back(tmp_path):
    model = ours(True, 'gelu')
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path)
    assert_equal_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval(), model)
    assert torch.equal(GPT.from_pretrained(tmp_path).lm_head.weight, model.lm_head.weight)


def test_there_and_back_is_the_same_to_the_bit(saved, tmp_path):
    gpt2, folder = saved
    GPT.from_pretrained(folder).save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.activation_function in (gpt2.config.activation_function, 'gelu_new')
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in gpt2.state_dict().items())


TEXT = 'The quick fox: "jumps"\n\n over naïve №7 — 12,345 or 1234567 dogs.  <tab>\tend\n'


def like_cl100k():
    """A small encoding with what is odd in cl100k_base: ids that stand for nothing, and a regex whose + after {1,3} gives nothing back."""
    tiktoken = pytest.importorskip('tiktoken')
    ranks = {bytes([i]): i for i in range(256)} | {b'12': 256, b'123': 257, b'qu': 258, b' qu': 259}
    return tiktoken.Encoding('like_cl100k', pat_str=r"\p{N}{1,3}+| ?\p{L}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s",
                             mergeable_ranks=ranks, special_tokens={'<|endoftext|>': 262, '<|fim|>': 263, '<|endofprompt|>': 270})


@pytest.mark.parametrize('kind', ['char', 'gpt2', 'bpe:300', 'cl100k'])
def test_a_checkpoint_becomes_a_folder_with_its_tokenizer(tmp_path, kind, monkeypatch):
    """By the command, as a user would; ids and text are those of the dataset."""
    from data.prepare import bpe_codec, char_codec, get_codec
    if kind == 'cl100k':
        encoding = like_cl100k()
        monkeypatch.setattr('data.prepare.tiktoken_bpe', lambda name: encoding)
    if kind == 'gpt2' and not os.environ.get('TIKTOKEN_CACHE_DIR'):
        pytest.skip("GPT-2's tables would have to be fetched; set TIKTOKEN_CACHE_DIR")
    codec = {'char': lambda: char_codec(sorted(set(TEXT), reverse=True)), 'gpt2': lambda: None, 'bpe:300': lambda: bpe_codec([TEXT], 300),
             'cl100k': lambda: {'vocab_size': 271, 'tokenizer': 'tiktoken:like_cl100k'}}[kind]()
    model = ours(False, 'gelu', codec['vocab_size'] if codec else 50257) # as nanoGPT's, finetuned from GPT-2
    torch.save(dict(model=model.state_dict(), model_args={k: v for k, v in vars(model.config).items() if k not in ('activation', 'rotary', 'ngrams', 'ngram_dropout')},
                    codec=codec), tmp_path / 'ckpt.pt')
    done = run('data/pretrained.py', tmp_path / 'ckpt.pt', tmp_path / 'hf')
    assert done.code == 0, done.err
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    encode, decode, _, end = get_codec(codec)
    assert tokenizer(TEXT).input_ids == encode(TEXT) and tokenizer.decode(encode(TEXT)) == decode(encode(TEXT)) == TEXT
    config = transformers.AutoConfig.from_pretrained(tmp_path / 'hf')
    assert tokenizer.eos_token_id == end == config.eos_token_id == config.bos_token_id
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0 # transformers' own are 0.1
    assert_equal_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf').eval(), model) if kind != 'char' else None

    # and back: it samples as the checkpoint does, and is finetuned on its own tokens only
    texts = [run('sample.py', num_samples=1, max_new_tokens=9, start='The fox', temperature=0, device='cpu', **place).out.split('M\n')[-1]
             for place in (dict(out_dir=tmp_path), dict(init_from=tmp_path / 'hf'))]
    assert texts[0] == texts[1] and 'The fox' in texts[0]
    data, others = make_dataset(tmp_path / 'data'), bpe_codec(['other words'], 300) if kind in ('bpe:300', 'cl100k') else char_codec(sorted(set(TEXT)))
    settings = {**TINY, 'max_iters': 1, 'init_from': tmp_path / 'hf', 'dataset': data, 'out_dir': tmp_path / 'out'}
    (data / 'meta.pkl').write_bytes(pickle.dumps({**others, **({'vocab_size': codec['vocab_size']} if codec else {})}))
    run('train.py', **settings).refused('other tokens')
    (data / 'meta.pkl').write_bytes(pickle.dumps(codec)) if codec else (data / 'meta.pkl').unlink()
    result = run('train.py', **settings)
    assert result.code == 0, result.err


def write_tokenizer(folder, special=('<|endoftext|>',), **more):
    """A BPE learned from TEXT, in a folder as transformers writes it; returns that."""
    from data.prepare import bpe_codec
    tokenizers = pytest.importorskip('tokenizers')
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(bpe_codec([TEXT * 9], 300)['json']), eos_token='<|endoftext|>', **more)
    tokenizer.add_special_tokens({'additional_special_tokens': list(special)})
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_tokenizers_as_others_leave_them(tmp_path):
    """With tokens that were added, cut and padded to the length of the last call, and in two files instead of one."""
    from data.prepare import get_codec
    from data.pretrained import read_codec
    texts = [TEXT, 'a', '<|im_start|>user\n12', 'a<|endoftext|>b']
    tokenizer = write_tokenizer(tmp_path, ['<|im_start|>'], pad_token='<|endoftext|>')
    wanted = [tokenizer(text).input_ids for text in texts]
    tokenizer('a', truncation=True, padding='max_length', max_length=7)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / 'tokenizer.json').read_text(encoding='utf-8'))['truncation']
    codec = read_codec(tmp_path)
    assert [get_codec(codec)[0](text) for text in texts] == wanted and codec['vocab_size'] == len(tokenizer)
    model = json.loads((tmp_path / 'tokenizer.json').read_text(encoding='utf-8'))['model']
    (tmp_path / 'tokenizer.json').unlink()
    (tmp_path / 'vocab.json').write_text(json.dumps(model['vocab']), encoding='utf-8')
    (tmp_path / 'merges.txt').write_text('\n'.join(' '.join(m) for m in model['merges']), encoding='utf-8')
    encode = get_codec(read_codec(tmp_path))[0]
    assert [encode(texts[i]) for i in (0, 1, 3)] == [wanted[i] for i in (0, 1, 3)]


def test_without_transformers_a_checkpoint_is_refused_for_the_reason_that_counts(trained, tmp_path, monkeypatch):
    for name in ('transformers', 'tokenizers'):
        monkeypatch.setitem(sys.modules, name, None) # as if they were not installed
    run('data/pretrained.py', trained / 'ckpt.pt', tmp_path / 'hf').refused('pip install transformers')
    checkpoint = torch.load(trained / 'ckpt.pt')
    checkpoint['model_args']['rotary'] = bool(checkpoint['model'].pop('transformer.wpe.weight').numel())
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    run('data/pretrained.py', tmp_path / 'ckpt.pt', tmp_path / 'hf').refused('no rotary positions')
    assert not (tmp_path / 'hf').exists()


def test_another_bpe_of_as_many_ids_is_not_gpt2s(tmp_path):
    from data.pretrained import read_codec
    model, end = dict(type='BPE', vocab={f'x{i}': i for i in range(50256)}), dict(content='<|endoftext|>', id=50256)
    (tmp_path / 'tokenizer.json').write_text(json.dumps(dict(model=model, decoder=dict(type='ByteLevel'), added_tokens=[end])), encoding='utf-8')
    assert read_codec(tmp_path)['vocab_size'] == 50257


def test_an_older_tokenizer_without_end_of_text_gets_none(tmp_path):
    from data.pretrained import read_codec
    pytest.importorskip('tokenizers')
    (tmp_path / 'vocab.json').write_text('{"a": 0, "b": 1}', encoding='utf-8')
    (tmp_path / 'merges.txt').write_text('', encoding='utf-8')
    assert read_codec(tmp_path)['vocab_size'] == 2


@pytest.mark.parametrize('says', [dict(activation_function=None), dict(activation_function='gelu_pytorch_tanh', n_inner=128)], ids=str)
def test_other_ways_to_say_openais_kind(folder, says):
    change_config(folder, **says)
    assert_equal_logits(make_gpt2(), GPT.from_pretrained(folder))


def test_what_is_fetched_from_the_hub(monkeypatch):
    from huggingface_hub.utils import filter_repo_objects
    from data.pretrained import folder_of
    files = ['config.json', 'model.safetensors', 'model-00001-of-00002.safetensors', 'tokenizer.json', 'vocab.json', 'merges.txt', 'pytorch_model.bin', 'onnx/a.onnx']
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda name, allow_patterns: list(filter_repo_objects(files, allow_patterns=allow_patterns)))
    assert folder_of('someone/gpt2') == files[:6]


def test_weights_in_half_precision_beside_the_whole_ones_are_left_alone(tmp_path):
    gpt2 = make_gpt2()
    gpt2.save_pretrained(tmp_path)
    gpt2.half().save_pretrained(tmp_path, variant='fp16')
    assert_equal_logits(make_gpt2(), GPT.from_pretrained(tmp_path))
    assert torch.equal(GPT.from_pretrained(tmp_path).state_dict()['transformer.wpe.weight'], make_gpt2().state_dict()['transformer.wpe.weight'])


def test_what_transformers_cannot_compute_is_not_written(trained, tmp_path):
    for more in (dict(rotary=True), dict(ngrams=9)):
        model = ours(False, 'gelu', **more)
        with pytest.raises(ValueError, match='rotary positions and no n-grams'):
            model.save_pretrained(tmp_path / 'hf')
    model = ours(False, 'gelu')
    model.transformer.h[0].mlp2 = torch.nn.Linear(2, 2) # as somebody may add to model.py
    with pytest.raises(ValueError, match=r'has no transformer\.h\.0\.mlp2\.bias, transformer'):
        model.save_pretrained(tmp_path / 'hf')
    model = ours(False, 'gelu', rotary=True)
    codec = {'vocab_size': 61, 'stoi': {chr(32 + i): i for i in range(61)}, 'itos': {i: chr(32 + i) for i in range(61)}}
    torch.save(dict(model=model.state_dict(), model_args=vars(model.config), codec=codec), tmp_path / 'ckpt.pt')
    run('data/pretrained.py', tmp_path / 'ckpt.pt', tmp_path / 'hf').refused('no rotary')
    run('data/pretrained.py', tmp_path / 'nothing.pt', tmp_path / 'hf').refused('no checkpoint')
    ckpt = torch.load(trained / 'ckpt.pt', weights_only=True)
    torch.save({k: v for k, v in ckpt.items() if k != 'codec'}, tmp_path / 'bare.pt')
    run('data/pretrained.py', tmp_path / 'bare.pt', tmp_path / 'hf').refused('30 ids stand for')
    run('data/pretrained.py', trained / 'ckpt.pt', tmp_path / 'bare.pt').refused('is a file')
    run('data/pretrained.py').refused('give a checkpoint and a folder')
    assert not (tmp_path / 'hf').exists()


@pytest.mark.parametrize('laid_over', ['finetune_8gb', 'finetune_cpu'])
def test_finetuning_as_configured(tmp_path, laid_over):
    """From a folder with random weights and GPT-2's vocabulary, on Shakespeare in GPT-2's tokens, to text."""
    from data.prepare import parted, write_parts
    text = os.environ.get('NANOGPT_SHAKESPEARE')
    if not (text and os.environ.get('TIKTOKEN_CACHE_DIR')):
        pytest.skip("needs Shakespeare and GPT-2's tables; set NANOGPT_SHAKESPEARE and TIKTOKEN_CACHE_DIR")
    with open(text, encoding='utf-8') as f:
        write_parts(str(tmp_path / 'data'), *parted(f.read()[:50000]), by_characters=False)
    make_gpt2(vocab_size=50257).save_pretrained(tmp_path / 'gpt2')
    done = run('train.py', 'config/finetune_shakespeare.py', f'config/{laid_over}.py', init_from=tmp_path / 'gpt2', dataset=tmp_path / 'data',
               out_dir=tmp_path / 'out', eval_iters=2, batch_size=2, gradient_accumulation_steps=2, max_iters=10, learning_rate=3e-3, device='cpu',
               compile=False, block_size=32)
    assert done.code == 0, done.err
    losses = [float(line.split('val loss ')[1]) for line in done.out.splitlines() if line.startswith('step ')]
    assert losses[-1] < losses[0]
    drawn = run('sample.py', out_dir=tmp_path / 'out', num_samples=1, max_new_tokens=5, start='First Citizen:', device='cpu')
    assert drawn.code == 0 and drawn.out.count('---------------') == 1 and 'First Citizen:' in drawn.out
