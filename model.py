"""
GPT-2 in one file: the network, its weights in and out, its optimizer and its text.

Names in shapes: B batch, T time (at most block_size), C channels (n_embd), V vocabulary, nh heads, hs head size (C / nh).
The architecture is "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), the parameter names and
the checkpoint's layout are nanoGPT's, so that files go both ways.
"""
import glob
import io
import json
import os
import pickle
import re
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

class UserError(ValueError):
    """What a user can mend, in a sentence; the scripts print it without a traceback."""

# ---- the network -------------------------------------------------------------------------------------------------------
ACTIVATIONS = {
    'gelu': nn.GELU(),
    'gelu_tanh': nn.GELU(approximate='tanh'), # what OpenAI's weights were trained with
}

@dataclass
class GPTConfig:
    """The shape of a GPT. Raises UserError, in a sentence, for one that cannot be built."""
    block_size: int = 1024 # longest context, in tokens
    vocab_size: int = 50304 # GPT-2's 50257 padded to a multiple of 64, which matmul kernels like
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True # in Linears and LayerNorms
    activation: str = 'gelu' # a key of ACTIVATIONS; not in a checkpoint unless it differs from this default

    def __post_init__(self):
        for name in ('block_size', 'vocab_size', 'n_layer', 'n_head', 'n_embd'):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UserError(f"{name} must be a whole number from 1 up, got {getattr(self, name)!r}")
        if type(self.bias) is not bool:
            raise UserError(f"bias must be True or False, got {self.bias!r}")
        if self.n_layer * max(self.n_embd, 1000) ** 2 + (self.vocab_size + self.block_size) * self.n_embd > 1e12:
            raise UserError(f"n_layer {self.n_layer}, n_embd {self.n_embd}, block_size {self.block_size} and vocab_size {self.vocab_size} "
                            "come to more parameters than fit any machine")
        if self.n_embd % self.n_head:
            fits = [n for n in range(1, self.n_embd + 1) if self.n_embd % n == 0]
            raise UserError(f"n_embd {self.n_embd} cannot be shared among n_head {self.n_head} heads; "
                             f"n_head may be {', '.join(map(str, fits))}")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}")

class LayerNorm(nn.LayerNorm):
    """torch's, with nanoGPT's two arguments."""
    def __init__(self, ndim, bias):
        super().__init__(ndim, eps=1e-5, bias=bias)

class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias) # query, key and value in one matmul
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4) # each (B, nh, T, hs)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True) # (B, nh, T, hs)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)))

class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(self.activation(self.c_fc(x))))

class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict({
            'wte': nn.Embedding(config.vocab_size, config.n_embd),
            'wpe': nn.Embedding(config.block_size, config.n_embd),
            'drop': nn.Dropout(config.dropout),
            'h': nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            'ln_f': LayerNorm(config.n_embd, config.bias),
        })
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.tie_weights()
        self.init_weights()

    def tie_weights(self):
        """Share one matrix between the token embedding and the head (Press and Wolf, arXiv:1608.05859)."""
        self.lm_head.weight = self.transformer.wte.weight

    @torch.no_grad()
    def init_weights(self):
        """N(0, 0.02) for matrices, and less by √(2·n_layer) for what adds to the residual stream, as GPT-2's paper says."""
        for name, p in self.named_parameters():
            if name.endswith('c_proj.weight'):
                p.normal_(0.0, 0.02 / (2 * self.config.n_layer) ** 0.5)
            elif p.dim() == 2:
                p.normal_(0.0, 0.02)
            elif name.endswith('bias'):
                p.zero_()

    def forward(self, idx, targets=None):
        """
        idx, targets: (B, T) token ids; a target of -1 counts for nothing. Returns (logits, loss): with targets all logits
        (B, T, V) and the mean cross-entropy in nats, without them only the last position's logits (B, 1, V) and None.
        Raises UserError if T exceeds block_size.
        """
        T = idx.size(1)
        if T > self.config.block_size:
            raise UserError(f"got {T} tokens, but the model reads at most {self.config.block_size} at once; crop them")
        position = torch.arange(T, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(position)) # (B, T, C)
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        if targets is None:
            return self.lm_head(x[:, -1:]), None
        logits = self.lm_head(x) # (B, T, V)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    # ---- weights in and out --------------------------------------------------------------------------------------------
    @classmethod
    def from_state(cls, config, state):
        """A GPT on the CPU that takes over the tensors of state, a dict by parameter name, without a copy of its own."""
        with torch.device('meta'):
            model = cls(config)
        state.setdefault('lm_head.weight', state.get('transformer.wte.weight'))
        try:
            model.load_state_dict(state, assign=True)
        except (RuntimeError, AttributeError) as e:
            raise UserError(f"the weights do not fit {config}: {' '.join(str(e).split())[:300]}") from e
        model.tie_weights()
        return model.requires_grad_()

    @classmethod
    def from_checkpoint(cls, checkpoint, override_args=None):
        """The model in a dict that load_checkpoint returned; override_args replace what model_args say, such as dropout."""
        try:
            config = GPTConfig(**{**checkpoint['model_args'], **(override_args or {})})
        except TypeError as e:
            raise UserError(f"the checkpoint's model_args are not this model's: {e}") from e
        return cls.from_state(config, checkpoint['model'])

    @classmethod
    def from_pretrained(cls, model_type, override_args=None):
        """
        The weights of a GPT-2 in transformers' format: a hub name such as 'gpt2-xl', fetched once by huggingface_hub, or a
        folder with config.json and *.safetensors. Only dropout may be overridden. Raises UserError with what is wrong.
        """
        more = set(override_args or {}) - {'dropout'}
        if more:
            raise UserError(f"only dropout may be overridden, got {', '.join(sorted(more))}")
        folder = model_type
        try:
            from safetensors.torch import load_file
            if not os.path.isdir(folder):
                from huggingface_hub import snapshot_download
                folder = snapshot_download(folder, allow_patterns=['config.json', 'model*.safetensors'])
            with open(os.path.join(folder, 'config.json'), encoding='utf-8') as f:
                hf = json.load(f)
            state = {}
            for path in glob.glob(os.path.join(glob.escape(folder), 'model*.safetensors')):
                state |= load_file(path)
            if not state:
                raise FileNotFoundError(f"no model*.safetensors in {folder}")
        except ImportError as e:
            raise UserError(f"{model_type} needs the package {e.name}: pip install transformers") from e
        except Exception as e: # what the hub, its cache and half a file raise is anyone's guess
            raise UserError(f"{model_type!r} is neither a folder with config.json and model.safetensors nor to be had from "
                             f"the hub ({type(e).__name__}: {' '.join(str(e).split('. ')[0].split())})") from e
        activation = {'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh'}
        odd = {}
        try:
            wanted = dict(model_type='gpt2', layer_norm_epsilon=1e-5, scale_attn_weights=True, n_inner=4 * hf.get('n_embd', 0),
                          scale_attn_by_inverse_layer_idx=False, tie_word_embeddings=True)
            odd = {k: hf[k] for k, v in wanted.items() if hf.get(k) not in (None, v)}
            config = dict(block_size=hf['n_positions'], bias=True, activation=activation[hf.get('activation_function', 'gelu_new')],
                          **{k: hf[k] for k in ('vocab_size', 'n_layer', 'n_head', 'n_embd')}, **(override_args or {}))
        except (KeyError, TypeError, AttributeError) as e:
            odd = odd or {'config.json': f'lacks or has an unknown {e}'}
        if odd:
            raise UserError(f"{model_type} is no GPT-2 of the kind that this model computes: {odd}")
        matrices = ('attn.c_attn.weight', 'attn.c_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight')
        for name in list(state): # theirs multiply from the right, so the four matrices of a block are transposed
            tensor = state.pop(name).float()
            if not name.endswith(('.attn.bias', '.attn.masked_bias', 'lm_head.weight')): # causal masks, and the tied head
                name = 'transformer.' + name.removeprefix('transformer.')
                state[name] = tensor.t().contiguous() if name.endswith(matrices) else tensor
        return cls.from_state(GPTConfig(**config), state)

    @torch.no_grad()
    def crop_block_size(self, block_size):
        """Forget the positions from block_size on. Raises UserError if the model never had that many."""
        if not 1 <= block_size <= self.config.block_size:
            raise UserError(f"block_size {block_size} is not within the model's 1 to {self.config.block_size}")
        self.config.block_size = block_size
        self.transformer.wpe = nn.Embedding.from_pretrained(self.transformer.wpe.weight[:block_size].clone(), freeze=False)

    # ---- training ------------------------------------------------------------------------------------------------------
    def get_num_params(self, non_embedding=True):
        """How many parameters, the tied matrix once; position embeddings, which enter no matmul, only if asked for."""
        skipped = self.transformer.wpe.weight.numel() if non_embedding else 0
        return sum(p.numel() for p in self.parameters()) - skipped

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        """AdamW (arXiv:1711.05101) in two groups: matrices and embeddings decay, biases and norms do not."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [dict(params=[p for p in trained if p.dim() > 1], weight_decay=weight_decay),
                  dict(params=[p for p in trained if p.dim() < 2], weight_decay=0.0)]
        fused = device_type in ('cuda', 'cpu', 'xpu', 'mps')
        return torch.optim.AdamW([g for g in groups if g['params']], lr=learning_rate, betas=betas, fused=fused)

    def estimate_mfu(self, fwdbwd_per_iter, dt, peak=None):
        """
        Model FLOPs utilisation: the share of peak (FLOP/s; without it, what peak_flops knows of this device in bfloat16)
        that fwdbwd_per_iter sequences in dt seconds come to. A token costs 6·N + 12·layers·heads·hs·T, PaLM's appendix B
        (arXiv:2204.02311). nan where the device is unknown.
        """
        c = self.config
        per_token = 6 * self.get_num_params() + 12 * c.n_layer * c.n_embd * c.block_size
        peak = peak or peak_flops(self.lm_head.weight.device, 'bfloat16') or float('nan')
        return per_token * c.block_size * fwdbwd_per_iter / dt / peak

    # ---- generation ----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
        """Continue each row of idx (B, T) by max_new_tokens; temperature 0 takes the likeliest, top_k 0 or None is off."""
        for _ in range(max_new_tokens):
            logits = self(idx[:, -self.config.block_size:])[0][:, -1].float() # (B, V)
            idx = torch.cat([idx, pick(logits, temperature, top_k)], dim=1)
        return idx

def pick(logits, temperature, top_k=None):
    """One token id a row, (B, 1), from logits (B, V)."""
    if temperature < 1e-6: # below that the division would overflow
        return logits.argmax(-1, keepdim=True)
    if top_k:
        kth = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]
        logits = logits.where(logits >= kth, float('-inf'))
    return torch.multinomial(F.softmax(logits / temperature, -1), 1)

# Dense peaks in TFLOP/s by a part of the device's name: bfloat16 or float16 with float32 sums, and float32 through TF32.
# From NVIDIA's data sheets and architecture papers; the first match counts.
PEAKS = [('B200', 2250, 1125), ('H200', 989, 494), ('H100 PCIe', 756, 378), ('H100 NVL', 835, 417), ('H100', 989, 494),
         ('GH200', 989, 494), ('GB200', 2250, 1125), ('A100', 312, 156), ('A800', 312, 156), ('L40S', 362, 183), ('L40', 181, 90), ('L4', 121, 60),
         ('A10G', 70, 35), ('A10', 125, 62), ('RTX A6000', 155, 77), ('RTX 6000 Ada', 364, 182), ('RTX 5090', 209, 105),
         ('RTX 4090', 165, 83), ('RTX 4080', 97, 49), ('RTX 3090', 71, 36), ('RTX 3080', 59, 30), ('V100', 125, 15.7), ('T4', 65, 8.1)]

def peak_flops(device, dtype):
    """The peak of a CUDA device in FLOP/s for 'bfloat16', 'float16' or 'float32'; None where it is not known."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == 'cuda' else ''
    return next((1e12 * (tf32 if dtype == 'float32' else half) for part, half, tf32 in PEAKS if re.search(rf'\b{part}\b', name) and 'Laptop' not in name), None)

# ---- files and text ------------------------------------------------------------------------------------------------------
def load_checkpoint(path):
    """
    The dict in a ckpt.pt, its tensors on the CPU, its parameter names without compile's prefix. Nothing in the file is
    executed. Raises UserError for a file that is missing, cut short, not a checkpoint, or that wants to run code.
    """
    kinds = dict(model=dict, model_args=dict, config=dict, optimizer=(dict, type(None)), codec=(dict, type(None)), progress=dict, scaler=dict,
                 iter_num=int, best_val_loss=(int, float, torch.Tensor)) # nanoGPT's is a tensor
    try:
        with warnings.catch_warnings(record=True): # torch's about foreign files would stand beside the error
            checkpoint = {'config': {}, 'iter_num': 0, 'best_val_loss': 1e9, **torch.load(path, map_location='cpu', weights_only=True)}
        wrong = [f"{k} is {f'of type {type(checkpoint[k]).__name__}' if k in checkpoint else 'missing'}" for k in kinds
                 if (k in checkpoint or k.startswith('model')) and not isinstance(checkpoint.get(k), kinds[k])]
        if wrong or checkpoint['iter_num'] < 0 or not {int, float} >= set(map(type, checkpoint.get('progress', {}).values())):
            raise TypeError(', '.join(wrong) or 'iter_num or progress holds what is no count')
        checkpoint['best_val_loss'] = float(checkpoint['best_val_loss'])
        checkpoint['model'] = {k.removeprefix('_orig_mod.'): v for k, v in checkpoint['model'].items()
                               if not k.endswith('.attn.bias')} # the causal mask that old files carry
        for k, v in checkpoint['model'].items():
            if not (v.is_floating_point() and v.isfinite().all()):
                raise ValueError(f"the weights in {k} are not finite numbers")
            checkpoint['model'][k] = v.float()
        if checkpoint.get('codec') is not None:
            check_codec(checkpoint['codec'], checkpoint['model_args']['vocab_size'])
    except FileNotFoundError as e:
        raise UserError(f"there is no checkpoint {path}; train first, or give the right --out_dir") from e
    except pickle.UnpicklingError as e:
        raise UserError(f"{path} is damaged, or holds more than tensors and plain values and might run code: not loaded") from e
    except Exception as e: # what a cut or foreign file raises depends on where it is cut
        raise UserError(f"{path} cannot be read, it is cut short, damaged or no checkpoint ({type(e).__name__}: {str(e)[:200]})") from e
    return checkpoint

def newest_checkpoint(out_dir):
    """
    (path, checkpoint, problem): the newest checkpoint in out_dir that is whole, or None, None; problem says in a sentence
    which newer file is not, or that there is none at all. Raises UserError if there are files and none is whole.
    """
    kept = sorted(glob.glob(os.path.join(glob.escape(out_dir), 'ckpt_[0-9]*.pt')), reverse=True)
    names = ('ckpt_last.pt', 'ckpt.pt') # the first is there only while it is the newer one
    problem = None
    for path in filter(os.path.exists, [*(os.path.join(out_dir, n) for n in names), *kept, os.path.join(out_dir, 'ckpt_best.pt')]):
        try:
            return path, load_checkpoint(path), problem
        except UserError as e:
            problem = problem or str(e)
    if problem:
        raise UserError(problem + '; move it away to start anew')
    return None, None, f"there is no checkpoint in {out_dir!r} to resume from; give the --out_dir of a run, or --init_from=auto to start one"

def on_host(x):
    """A copy of a nested state in host memory, which the updates to come leave alone."""
    if isinstance(x, torch.Tensor):
        return x.detach().to('cpu', copy=True)
    if isinstance(x, dict):
        return {k: on_host(v) for k, v in x.items()}
    return [on_host(v) for v in x] if isinstance(x, (list, tuple)) else x

def save_checkpoint(state, paths, keep=1):
    """
    Put state under each path in one step: whoever looks finds the old file or the new one, whole, after any crash. With
    keep above 1 only the newest so many ckpt_ITERATION.pt stay. Raises OSError or RuntimeError; the old files are then untouched.
    """
    folder = os.path.dirname(paths[-1])
    part = os.path.join(folder, 'ckpt.tmp')
    state['model']['lm_head.weight'] = state['model']['transformer.wte.weight'] # one matrix in the file too
    try:
        for path in paths:
            torch.save(state, part)
            fsync(part)
            os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
    if os.name == 'posix':
        fsync(folder) # the renaming itself
    if paths[-1].endswith('ckpt.pt') and os.path.exists(os.path.join(folder, 'ckpt_last.pt')):
        os.remove(os.path.join(folder, 'ckpt_last.pt'))
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'ckpt_[0-9]*.pt')))[:-keep] if keep > 1 else ():
        os.remove(path)

def fsync(path):
    """Return when the file or folder is on the disk."""
    fd = os.open(path or '.', os.O_RDONLY if os.path.isdir(path or '.') else os.O_RDWR)
    os.fsync(fd)
    os.close(fd)

class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings and containers, and refuses anything that would import a name."""
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")

def find_data(dataset):
    """The folder of a dataset: data/dataset here, or else beside this file. Raises UserError if there is none."""
    places = [os.path.join(p, 'data', dataset) for p in ('', os.path.dirname(os.path.abspath(__file__)))]
    for folder in filter(os.path.isdir, places):
        return folder
    there = sorted(os.path.basename(os.path.dirname(p)) for p in glob.glob(os.path.join(os.path.dirname(places[1]), '*', 'prepare.py')))
    raise UserError(f"there is no dataset {dataset!r}, neither {' nor '.join(places)}; there is {', '.join(there)}, or a folder of your own")

def open_bin(folder, split, meta, least=1):
    """A split's ids, mapped from the disk. Raises UserError if the file is missing, cut short, or has fewer than least."""
    path, dtype = os.path.join(folder, f'{split}.bin'), np.dtype((meta or {}).get('dtype', 'uint16'))
    if not os.path.isfile(path):
        script = os.path.join(folder, 'prepare.py')
        raise UserError(f"{path} is missing: run python {script if os.path.exists(script) else 'data/prepare.py TEXT --name=NAME'}")
    size = os.path.getsize(path)
    if size == 0 or size % dtype.itemsize:
        raise UserError(f"{path} has {size} bytes, no whole number of {dtype} tokens: it is cut short or of another kind, prepare it again")
    if size < least * dtype.itemsize:
        raise UserError(f"{path} has {size // dtype.itemsize} tokens, fewer than block_size {least - 1} and the one to predict; give a smaller --block_size")
    return np.memmap(path, dtype=dtype, mode='r')

def check_codec(meta, vocab_size):
    """Raise TypeError or KeyError unless the tables of a meta.pkl have one text for each of vocab_size ids."""
    V, stoi, itos = (meta[k] for k in ('vocab_size', 'stoi', 'itos'))
    if not (type(V) is int and V == vocab_size == len(itos) > 0 and meta.get('dtype', 'uint16') in ('uint16', 'uint32')
            and all(type(itos[i]) is str for i in range(V)) and all(type(s) is str and type(i) is int and 0 <= i < V for s, i in stoi.items())):
        raise TypeError(f"its tables stoi and itos do not pair text with the ids below {vocab_size}")

def load_meta(path):
    """The dict in a meta.pkl; None if there is no such file, which means GPT-2 BPE. Raises UserError for a bad one."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, 'rb') as f:
            meta = PlainUnpickler(io.BytesIO(f.read())).load()
        check_codec(meta, meta['vocab_size'])
    except Exception as e:
        raise UserError(f"{path} is no meta.pkl of plain data ({type(e).__name__}: {e}): not loaded") from e
    return meta

def get_codec(meta):
    """(encode: text -> ids, decode: ids -> text) of a meta.pkl's content; without one GPT-2 BPE, which needs tiktoken."""
    if meta is None:
        try:
            import tiktoken
        except ImportError as e:
            raise UserError("text in GPT-2 BPE needs the package tiktoken: pip install tiktoken") from e
        try:
            bpe = tiktoken.get_encoding('gpt2')
        except Exception as e: # no network, in one of many forms
            raise UserError(f"tiktoken could not fetch GPT-2's tables ({type(e).__name__})") from e
        return (lambda text: bpe.encode(text, allowed_special={'<|endoftext|>'})), lambda ids: bpe.decode([i for i in ids if i < bpe.n_vocab])
    stoi, itos = meta['stoi'], meta['itos']
    def encode(text):
        unknown = sorted(set(text) - set(stoi))
        if unknown:
            raise UserError(f"the model never saw {' '.join(map(repr, unknown))}; it knows {''.join(sorted(stoi))!r}")
        return [stoi[c] for c in text]
    return encode, lambda ids: ''.join(itos[i] for i in ids)
