"""GPT-2 in one file: the network, loading and saving weights, the optimizer, and generation.
Shapes: B batch, T time, at most block_size, S time in the cache, C channels (n_embd), V vocabulary, nh heads, hs = C / nh.
Architecture: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019); names and file formats are nanoGPT's."""
import glob
import inspect
import os
import pickle
import re
import time
import warnings
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

if not hasattr(torch.optim, 'Muon'): # which came with 2.9
    raise SystemExit(f"torch {torch.__version__} is too old, 2.9 or later is needed: pip install --upgrade torch")

class UserError(ValueError):
    """A mistake that a user can mend, in a sentence; the scripts print it without a traceback."""
# ---- the network -------------------------------------------------------------------------------------------------------
ACTIVATIONS = {'gelu': nn.GELU, 'gelu_tanh': lambda: nn.GELU('tanh')} # add yours here; OpenAI's weights were trained with gelu_tanh

@dataclass
class GPTConfig:
    """The shape of a GPT; numpy's numbers, and 0 and 1 for a bool, are converted. Raises UserError for one that cannot be built."""
    block_size: int = 1024 # longest context, in tokens
    vocab_size: int = 50304 # GPT-2's 50257 padded to a multiple of 64, which matmul kernels like
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True # biases in Linears and LayerNorms
    # not in nanoGPT; so that it can read our checkpoints, their model_args leave out activation, and the others unless they are set
    activation: str = 'gelu' # a key of ACTIVATIONS
    rotary: bool = False # rotary position embeddings (Su et al., arXiv:2104.09864) in place of wpe
    ngrams: int = 0 # rows of wng, a hashed table of embeddings of the last 2, 3 and 4 tokens, added to each token's own
    ngram_dropout: float = 0.0 # share of the rows looked up that is dropped in training

    def __post_init__(self):
        for name, kind in GPTConfig.__annotations__.items(): # fields that users add may be of other kinds, which go unchecked
            value, least = getattr(self, name), int(getattr(GPTConfig, name) != 0) # a default of 0 allows 0
            value = bool(value) if kind is bool and value in (0, 1) else value.item() if hasattr(value, 'item') else value
            setattr(self, name, value)
            wanted = {int: f'a whole number from {least} up', float: 'a number', bool: 'True or False', str: 'text'}.get(kind)
            if wanted and (type(value) not in ((int, float) if kind is float else (kind,)) or kind is int and value < least):
                raise UserError(f"{name} must be {wanted}, got {value!r}")
        if self.n_layer * max(self.n_embd, 10000) ** 2 + (self.vocab_size + self.block_size + self.ngrams) * self.n_embd > 1e12:
            raise UserError(f"{self} has more layers or parameters than fit any machine") # 10,000 layers, however narrow, are too many
        fits = [n for n in range(1, self.n_embd + 1) if self.n_embd % (2 * n if self.rotary else n) == 0] # rotary rotates pairs
        if self.n_head not in fits:
            raise UserError(f"n_embd {self.n_embd} cannot be divided among n_head {self.n_head} heads{' of even size' * self.rotary}; n_head may be {str(fits)[1:-1] or 'none'}")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}")

class LayerNorm(nn.LayerNorm): # torch's, with nanoGPT's two arguments
    def __init__(self, ndim, bias):
        super().__init__(ndim, bias=bias)
    def forward(self, x): # in float32 if the weights are, as CUDA's autocast has it; a CPU would sum their gradients in x's bfloat16
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))

def rotations(T, hs, device):
    """Cosines and sines of the rotary angles of T positions in hs/2 planes: (2, T, 1, hs/2)."""
    angle = torch.arange(T, device=device)[:, None, None] * 1e4 ** (-torch.arange(0, hs, 2, device=device) / hs)
    return torch.stack((angle.cos(), angle.sin()))
rotations._dynamo_marked_constant = True # in compiled graphs, as torch.compiler.assume_constant_result does after a second of imports

def turned(x, cos, sin):
    """Queries or keys (B, T, nh, hs), each plane of channels i and hs/2 + i rotated by its angle; cos and sin (…, T, 1, hs/2)."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).type_as(x)

def hashed(idx, rows):
    """Hashes, below rows, of the last 2, 3 and 4 tokens at each position of idx (B, T): (B, T, 3). In idx, -1 means no token."""
    past, key, found = F.pad(idx, (3, 0), value=-1), idx, []
    for k in 1, 2, 3: # each mixes in the token k places back
        key = (key * 1000003 + past[:, 3 - k:-k] + 1) % (2 ** 31 - 1) # nothing overflows, so all devices agree
        found.append((key * 2654435761 >> 16) % rows)
    return torch.stack(found, -1)

class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_embd, self.dropout = config.n_head, config.n_embd, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias) # query, key and value in one matmul
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, cache=None, at=None, mask=None, turn=None): # x and result (B, T, C); for the others see GPT.trunk
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).unbind(2) # each (B, T, nh, hs)
        if turn:
            q, k = turned(q, *turn), turned(k, *turn)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v)) # (B, nh, T, hs); y and they lie in memory as (B, T, nh, hs)
        if mask is not None: # one token per row, each at its own position
            cache[:, torch.arange(B, device=x.device), :, at] = torch.stack((k, v), 1)[:, :, :, 0] # both sides (B, 2, nh, hs)
        elif cache is not None:
            cache[0, :, :, -T:], cache[1, :, :, -T:] = k, v
        k, v = (k, v) if at is None else cache
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.dropout * self.training, is_causal=at is None) # (B, nh, T, hs)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)))

class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.gelu = ACTIVATIONS[getattr(config, 'activation', 'gelu')]()
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))

class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config)

    def forward(self, x, **past): # past: the attention's cache, at, mask and turn, or nothing
        x = x + self.attn(self.ln_1(x), **past)
        return x + self.mlp(self.ln_2(x))

class ChunkedLoss(torch.autograd.Function):
    """Mean cross-entropy of x (N, C) through weight (V, C) against targets (N), -1 ignored. Only rows tokens have logits at once,
    and none are kept: if train, the forward pass computes the gradients too. Equal to the plain form up to rounding."""
    @staticmethod
    def forward(ctx, x, weight, targets, rows, train):
        ctx.n, loss = (targets != -1).sum(), torch.zeros((), device=x.device)
        dx, dw = ctx.gradients = (torch.zeros_like(x), torch.zeros_like(weight)) if train else (None, None)
        for i in range(0, len(x), rows):
            a, t, counted = x[i:i + rows], targets[i:i + rows, None].clamp(min=0), targets[i:i + rows, None] != -1
            logp = F.log_softmax(F.linear(a, weight).float(), -1)
            loss -= logp.gather(1, t).where(counted, 0).sum()
            if train: # p becomes the gradient of the sum by the logits: probabilities, less one at the target
                p = logp.exp_().scatter_add_(1, t, torch.full_like(t, -1, dtype=logp.dtype))
                dx[i:i + rows] = (p @ weight) * counted
                dw.addmm_(p.t(), a.float() * counted)
        return loss / ctx.n # the gradients are of the sum; backward divides them

    @staticmethod
    def backward(ctx, gradient):
        gradients, ctx.gradients = ctx.gradients, None # drop our references, so that autograd may accumulate in place
        return *(g.mul_(gradient / ctx.n.clamp(min=1)) for g in gradients), None, None, None

class Hollow(torch.overrides.TorchFunctionMode): # within it weights get no initial values, which on the meta device cost a second of imports
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return [*args, *(kwargs or {}).values()][0] if func.__name__ == 'normal_' else func(*args, **(kwargs or {})) # the tensor, as it is

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        tables = {'wte': config.vocab_size, 'wpe': 0 if config.rotary else config.block_size, 'wng': config.ngrams}
        self.transformer = nn.ModuleDict({name: nn.Embedding(n, config.n_embd) for name, n in tables.items() if n} | {
            'drop': nn.Dropout(config.dropout), 'h': nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            'ln_f': LayerNorm(config.n_embd, config.bias)})
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight # one matrix for both (Press and Wolf, arXiv:1608.05859)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """N(0, 0.02) for matrices, over √(2·n_layer) for those that add to the residual (GPT-2's paper), 0 for biases and wng."""
        for name, p in self.named_parameters():
            if name.endswith(('.bias', 'wng.weight')):
                p.zero_()
            elif isinstance(self.get_submodule(name.rpartition('.')[0]), (nn.Linear, nn.Embedding)):
                p.normal_(0.0, 0.02 / (2 * self.config.n_layer) ** 0.5 if name.endswith('c_proj.weight') else 0.02)

    def trunk(self, idx, cache=None, at=None, apart=False):
        """The network without its head: (B, T) ids to (B, T, C). cache is a list of one (2, B, nh, S, hs) per layer; keys and values
        of the T ids go into its last T places. With at (B) too, only the last id of each row is computed, as the token at position
        at, and attends to all of the cache: (B, 1, C); the ids before it serve n-grams only. If apart, rows may be at different
        positions, so each row's key and value go into place at, and it attends to the places up to there."""
        c, net, kind, T = self.config, self.transformer, idx.device.type, idx.size(1) if at is None else 1
        position = torch.arange(T, device=idx.device) if at is None else at[:, None]
        mask = torch.arange(cache[0].size(-2), device=at.device) <= at.view(-1, 1, 1, 1) if apart else None # (B, 1, 1, S)
        x, past = net.wte(idx[:, -T:]), {'at': at, 'mask': mask} if cache else {} # past: what blocks get besides x
        if c.rotary: # cos and sin, each (T, 1, hs/2), or (B, 1, 1, hs/2) with at
            past['turn'] = tuple(rotations(c.block_size, c.n_embd // c.n_head, idx.device)[:, position])
        else:
            x = x + net.wpe(position)
        if c.ngrams: # dropout1d drops whole rows of wng, of which each token has three
            x = x + F.dropout1d(net.wng(hashed(idx, c.ngrams)[:, -T:]).flatten(0, 1), c.ngram_dropout, self.training).sum(-2).view_as(x)
        half = kind != 'meta' and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
        x = net.drop(x.bfloat16() if half else x) # a residual stream in bfloat16, as matmuls give it: half the memory
        for i, block in enumerate(net.h): # training without rotation gives x alone, so a block of your own need take no more
            x = block(x, **past, **({'cache': cache[i]} if cache else {}))
        return net.ln_f(x)

    def forward(self, idx, targets=None, rows=None):
        """idx, targets: (B, T) token ids; a target of -1 is ignored. Returns (logits, loss): with targets all logits (B, T, V)
        and the mean cross-entropy in nats, without them only the last position's logits (B, 1, V) and None. With targets and
        rows the logits are None (returned, they would cost a compiled backward pass a gradient of zeros); the loss is then computed
        for rows tokens at a time, or for all at once if rows is 0. Raises UserError if T exceeds block_size."""
        if idx.size(1) > self.config.block_size:
            raise UserError(f"got {idx.size(1)} tokens, but the model reads at most {self.config.block_size} at once; crop them")
        x = self.trunk(idx)
        if targets is None:
            return self.lm_head(x[:, -1:]), None
        if rows and rows < targets.numel(): # else all at once
            return None, ChunkedLoss.apply(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), rows, torch.is_grad_enabled())
        logits = self.lm_head(x) # (B, T, V)
        return logits if rows is None else None, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    # ---- weights in and out --------------------------------------------------------------------------------------------
    @classmethod
    def from_state(cls, config, state):
        """A GPT of the tensors in state, a dict by parameter name, which are not copied. Raises UserError if they do not fit."""
        with torch.device('meta'), Hollow():
            model = cls(config)
        state.setdefault('lm_head.weight', state.get('transformer.wte.weight')) # a file may hold the tied matrix once
        try:
            model.load_state_dict(state, assign=True)
        except (RuntimeError, AttributeError) as e:
            raise UserError(f"the weights do not fit {config}: {' '.join(str(e).split())[:300]}") from e
        if torch.equal(model.lm_head.weight, model.transformer.wte.weight): # else they were trained as two
            model.lm_head.weight = model.transformer.wte.weight
        return model

    @classmethod
    def from_checkpoint(cls, checkpoint, override_args=None):
        """The model in load_checkpoint's dict, with override_args in place of its model_args. Raises UserError if they misfit."""
        try:
            return cls.from_state(GPTConfig(**checkpoint['model_args'] | (override_args or {})), checkpoint['model'])
        except TypeError as e:
            raise UserError(f"the checkpoint's model_args are not this model's: {e}") from e

    @classmethod
    def from_pretrained(cls, model_type, override_args=None):
        """The GPT-2 of a hub name such as 'gpt2-xl', or of a folder that transformers wrote. Only dropout may be overridden.
        Raises UserError if it cannot be read."""
        from data.pretrained import read_pretrained
        if more := set(override_args or {}) - {'dropout'}:
            raise UserError(f"only dropout may be overridden, got {', '.join(sorted(more))}")
        args, state = read_pretrained(model_type)
        return cls.from_state(GPTConfig(**args, **(override_args or {})), state)

    def save_pretrained(self, folder):
        """Write the model for transformers' AutoModelForCausalLM. Raises UserError if its GPT-2 cannot compute this network."""
        from data.pretrained import write_pretrained
        write_pretrained(self, folder, 50256 if self.config.vocab_size > 50256 else None) # <|endoftext|> in GPT-2's BPE

    @torch.no_grad()
    def crop_block_size(self, block_size):
        """Drop the positions from block_size on, in place. Raises UserError if the model has fewer."""
        if not 1 <= block_size <= (most := self.config.block_size):
            raise UserError(f"block_size {block_size} is not within these weights' 1 to {most}; give --block_size={most}")
        self.config.block_size = block_size
        if not self.config.rotary:
            self.transformer.wpe = nn.Embedding.from_pretrained(self.transformer.wpe.weight[:block_size].clone(), freeze=False)

    # ---- training ------------------------------------------------------------------------------------------------------
    def get_num_params(self, non_embedding=True):
        """The number of parameters, the tied matrix counted once; non_embedding leaves out wpe and wng, which enter no matmul."""
        return sum(p.numel() for name, p in self.named_parameters() if not (non_embedding and name.endswith(('wpe.weight', 'wng.weight'))))

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type, but=()):
        """AdamW (arXiv:1711.05101) for all parameters but those in but, in two groups: matrices and embeddings decay, the rest does not."""
        trained = [p for p in self.parameters() if p.requires_grad and p not in set(but)]
        groups = [dict(params=[p for p in trained if (p.dim() > 1) == decays], weight_decay=weight_decay * decays) for decays in (True, False)]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=device_type in ('cuda', 'cpu', 'xpu', 'mps'))

    def estimate_mfu(self, fwdbwd_per_iter, dt, peak=None):
        """Model FLOPs utilisation: the share of peak (FLOP/s; by default this device's in bfloat16 by peak_flops, or nan) that
        fwdbwd_per_iter sequences in dt seconds reach. A token costs 6·N + 12·layers·C·T, PaLM's appendix B (arXiv:2204.02311)."""
        c, peak = self.config, peak or peak_flops(self.transformer.wte.weight.device, 'bfloat16') or float('nan')
        return (6 * self.get_num_params() + 12 * c.n_layer * c.n_embd * c.block_size) * c.block_size * fwdbwd_per_iter / dt / peak

    # ---- generation ----------------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def stream(self, prompts, max_new_tokens, temperature=1.0, top_k=None, top_p=None, context_stride=1, n_vocab=None, draws=None, compiled=False):
        """Yields, max_new_tokens times, the next id of each row, (B,) on the model's device, by trunk and lm_head, not by forward.
        prompts are B lists of ids; each row gets what it would get alone. pick chooses by draws (B, max_new_tokens), which default
        to torch's CPU generator; ids from n_vocab up are never drawn. compiled makes a step one graph of static shapes, on CUDA a
        CUDA graph. Keys and values are cached, unless blocks or attention of your own take only x, until a row fills block_size.
        Positions are absolute, so from then on the window moves by context_stride tokens at once and is recomputed. Raises
        UserError for an empty prompt or an impossible stride."""
        choose = lambda x, draws: pick(self.lm_head(x)[:, :n_vocab].float(), draws, temperature, top_k, top_p) # x: last hidden states (B, C)
        step = lambda recent, cache, at, apart, draws: choose(self.trunk(recent, cache, at, apart)[:, 0], draws)
        c, weight, B, alike = self.config, self.transformer.wte.weight, len(prompts), all(p == prompts[0] for p in prompts)
        if not all(prompts) or not 1 <= context_stride <= c.block_size:
            raise UserError(f"a prompt needs a token, and context_stride, {context_stride}, must be within 1 to block_size, {c.block_size}")
        draws = torch.rand(B, max_new_tokens) if draws is None else draws
        sizes = [min(len(p), c.block_size) for p in prompts] # of windows, which are the ends of the rows' texts that the model reads
        S = c.block_size if compiled else min(c.block_size, max(sizes) + max_new_tokens) # positions in the cache
        ids = torch.tensor([[-1, -1, -1, *p[-n:], *[0] * (S + 1 - n)] for p, n in zip(prompts, sizes, strict=True)]) # n-grams look at three before
        rows, at, ids, draws = (x.to(weight.device) for x in (torch.arange(B), torch.tensor(sizes) - 1, ids, draws))
        window = ids[:, 3:] # a view (B, S + 1): each row is read up to at; sizes says the same on the host, so that nothing waits for the device
        cached = all(re.search(r'\bcache\b|\*\*', str(inspect.signature(m.forward))) for b in self.transformer.h for m in (b, getattr(b, 'attn', b)))
        cache = [weight.new_zeros(2, B, c.n_head, S, c.n_embd // c.n_head) for _ in self.transformer.h if cached]
        for x in cache if compiled else ():
            torch._dynamo.mark_static_address(x, guard=False) # a CUDA graph writes to them where they are
        step = torch.compile(step, fullgraph=True, dynamic=False, mode='reduce-overhead' if weight.is_cuda else None) if compiled else step
        for t in range(max_new_tokens):
            if moved := max(sizes) > c.block_size: # windows that are too long drop their oldest ids, which roll puts where nothing reads
                over = at == c.block_size
                window[:] = torch.where(over[:, None], window.roll(-context_stride, 1), window)
                at, sizes = at - context_stride * over, [n - context_stride * (n > c.block_size) for n in sizes]
            T = max(sizes) # shorter windows are followed by ids to which they do not attend
            past = [x[..., :T, :] for x in cache]
            if t == 0 or moved or not cached: # compute whole windows, at first one for all rows if prompts are alike
                past = past if T < c.block_size else None # a full window moves before its cache would be read
                x = self.trunk(window[:1 if t == 0 and alike else B, :T], past).expand(B, -1, -1)
                token = choose(x[rows, at], draws[rows, t])
            else: # compute each row's last token from the cache; a graph has one shape, and reuses its memory
                recent, apart = ids.gather(1, at[:, None] + torch.arange(4, device=at.device)), compiled or min(sizes) < T
                token = step(recent, cache if compiled else past, at, apart, draws[rows, t]).clone()
            at, sizes = at + 1, [n + 1 for n in sizes]
            window[rows, at] = token
            yield token

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=(), **more):
        """Returns idx (B, T) with max_new_tokens more ids per row, or fewer if before that every row has had an id in stop. A row
        that is done repeats its last id. For the other arguments, and to get ids one by one, see stream."""
        ids, over, stop = [idx], torch.zeros_like(idx[:, :1], dtype=torch.bool), torch.tensor(stop, device=idx.device)
        for token in self.stream(idx.tolist(), max_new_tokens, temperature, top_k, top_p, **more):
            ids.append(torch.where(over, ids[-1][:, -1:], token[:, None]))
            over |= torch.isin(ids[-1], stop)
            if len(stop) and over.all():
                break
        return torch.cat(ids, 1)

class Float32Stays(torch.overrides.TorchFunctionMode):
    """Within it, Muon's conversions, x.bfloat16() or in later torch x.to(dtype=torch.bfloat16), return a copy of x as it is."""
    def __torch_function__(self, func, types, args=(), kwargs=None):
        halves = func is torch.Tensor.bfloat16 or (kwargs or {}).get('dtype') is torch.bfloat16
        return args[0].clone() if halves else func(*args, **(kwargs or {}))

class Muon(torch.optim.Muon):
    """torch's Muon, for the matrices of model's blocks. Its parameters are views of them, three of each c_attn, because queries,
    keys and values are orthogonalised separately; call take_gradients before each step. lr is that of Jordan et al. (their page:
    kellerjordan.github.io/posts/muon). It uses bfloat16, for which many CPUs and older GPUs have no instructions, only if half."""
    def __init__(self, model, lr, weight_decay, half=False):
        self.precision = nullcontext() if half else Float32Stays()
        self.parts = {p: [nn.Parameter(part) for part in p.detach().chunk(3 if 'c_attn' in name else 1)]
                      for name, p in model.transformer.h.named_parameters() if p.dim() == 2}
        super().__init__(sum(self.parts.values(), []), lr=lr, weight_decay=weight_decay)

    def take_gradients(self): # the views have none of their own
        for p, parts in self.parts.items():
            for part, grad in zip(parts, p.grad.chunk(len(parts)), strict=True):
                part.grad = grad

    def step(self, closure=None):
        with self.precision:
            return super().step(closure)

def pick(logits, draws, temperature, top_k=None, top_p=None):
    """Draw an id per row, (B,), from logits (B, V): the row's number in draws, (B,) in [0, 1), is looked up in the cumulative
    probabilities of the top_k likeliest ids, cut where they reach top_p (0 or None: no cut). temperature 0 takes the likeliest."""
    if temperature < 1e-6: # below that the division would overflow
        return logits.argmax(-1)
    V, ids = logits.size(-1), None # without limits, in the vocabulary's order, which needs no sorting
    if top_p or 0 < (top_k or 0) < V:
        logits, ids = logits.topk(min(top_k or V, V))
    mass = F.softmax(logits / temperature, -1).cumsum(-1)
    end = mass.size(-1) - 1 # the last place; limit (B, 1) is the mass up to the last id that may be drawn
    limit = mass.gather(1, (mass < top_p).sum(-1, keepdim=True).clamp(max=end)) if top_p else mass[:, -1:]
    choice = torch.searchsorted(mass, draws[:, None] * limit, right=True).clamp(max=end)
    return (choice if ids is None else ids.gather(1, choice))[:, 0]

# Dense TFLOP/s in bfloat16 or float16 with float32 accumulation, by a part of the device's name, from NVIDIA's data sheets; the
# first match counts. float32 reaches half of that with TF32, an eighth on devices without it.
PEAKS = {'B200': 2250, 'GB200': 2500, 'H200 NVL': 835, 'H200': 989, 'GH200': 989, 'H100 PCIe': 756, 'H100 NVL': 835, 'H100': 989, 'A100': 312,
         'A800': 312, 'L40S': 362, 'L40': 181, 'L4': 121, 'A10G': 70, 'A10': 125, 'RTX A6000': 155, 'RTX 6000 Ada': 364,
         'RTX 5090': 209, 'RTX 4090': 165, 'RTX 4080': 97, 'RTX 3090': 71, 'RTX 3080': 59, 'V100-PCIE': 112, 'V100': 125, 'T4': 65}

def peak_flops(device, dtype):
    """The peak of a CUDA device in FLOP/s for 'bfloat16', 'float16' or 'float32'; None if it is not known."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == 'cuda' else ''
    part = next((part for part in PEAKS if re.search(rf'\b{part}\b', name) and not re.search(r'Laptop|MIG|SUPER|\bTi\b|\bD\b', name)), None)
    return part and 1e12 * PEAKS[part] / (1 if dtype != 'float32' else 8 if part[:4] in ('V100', 'T4') else 2)
# ---- checkpoints ---------------------------------------------------------------------------------------------------------
def load_checkpoint(path):
    """The dict in a ckpt.pt, its tensors on the CPU, its parameter names without compile's prefix. Nothing in the file is
    executed. Raises UserError for a file that is missing, cut short, not a checkpoint, or that wants to run code."""
    kinds = dict(model=dict, model_args=dict, config=dict, progress=dict, activation=str, iter_num=int, optimizer=dict | None,
                 codec=dict | None, scaler=dict | None, muon=dict | None, wandb_id=str | None, best_val_loss=int | float | torch.Tensor)
    defaults = dict(config={}, progress={}, activation='gelu', iter_num=0, best_val_loss=1e9) # for files that lack them
    try:
        with warnings.catch_warnings(record=True): # torch's warnings about foreign files would add lines to the error
            checkpoint = {**defaults, **torch.load(path, map_location='cpu', weights_only=True)}
        if wrong := [f"{k} is {f'of type {type(checkpoint[k]).__name__}' if k in checkpoint else 'missing'}"
                     for k, kind in kinds.items() if not isinstance(checkpoint.get(k), kind)]:
            raise TypeError(', '.join(wrong))
        args = checkpoint['model_args'] = {'activation': checkpoint['activation']} | checkpoint['model_args'] # nanoGPT's lack it
        number = lambda v: type(v) in (int, float) and abs(v) < 2 ** 63
        plain = lambda v: isinstance(v, bool | float | str | None) or all(map(number, v if type(v) is tuple else (v,))) # a list may hold itself
        counts = [checkpoint['iter_num'], args.get('block_size'), args.get('vocab_size'), *checkpoint['progress'].values(), (checkpoint.get('codec') or {}).get('vocab_size', 0)]
        if not (all(map(plain, args.values())) and all(map(number, counts)) and checkpoint['iter_num'] >= 0):
            raise TypeError('iter_num, progress, codec or model_args holds what is no number and no word')
        checkpoint['config'] = {k: v for k, v in checkpoint['config'].items() if plain(v)}
        checkpoint['best_val_loss'] = float(checkpoint['best_val_loss'])
        weights = checkpoint['model'] = {k.removeprefix('_orig_mod.'): v for k, v in checkpoint['model'].items()
                                         if not k.endswith('.attn.bias')} # the causal mask that old files carry
        for k, v in weights.items():
            whole = v.untyped_storage().nbytes() >= v.nbytes # else an optimizer would write beyond it
            if not whole or v.is_complex() or k.endswith(('.weight', '.bias')) and not v.float().isfinite().all(): # masks may hold -inf
                raise ValueError(f"the weights in {k} are not finite numbers, or there are fewer than it says")
            weights[k] = (v.detach().float() if v.is_floating_point() else v).resolve_neg().contiguous() # integers are buffers
    except FileNotFoundError as e:
        raise UserError(f"there is no checkpoint {path}; train first, or give the folder of a run, in sample.py by --out_dir") from e
    except pickle.UnpicklingError as e:
        raise UserError(f"{path} is damaged, or holds more than tensors and plain values and might run code: not loaded") from e
    except Exception as e: # what a cut or foreign file raises depends on where it is cut
        raise UserError(f"{path} cannot be read, it is cut short, damaged or no checkpoint ({type(e).__name__}: {str(e)[:200].split('. ')[0]})") from e
    return checkpoint

def by_age(folder, pattern):
    """The files in folder that match pattern, oldest first."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)), key=lambda p: (os.path.getmtime(p), p))

def newest_checkpoint(out_dir):
    """(path, checkpoint, problem): the newest checkpoint in out_dir that is whole, or None and {}; problem is None, or a sentence
    that names a newer file that is damaged or says that there is none. Raises UserError if there are files but none is whole."""
    problem, kept = None, by_age(out_dir, 'ckpt_[0-9]*.pt')[::-1]
    last, ckpt, best = (os.path.join(out_dir, f'ckpt{kind}.pt') for kind in ('_last', '', '_best'))
    paths = [last, *kept, ckpt, best] if os.path.exists(last) else [ckpt, *kept, best] # ckpt_last.pt is there only while it is newest
    for path in filter(os.path.exists, paths):
        try:
            return path, load_checkpoint(path), problem
        except UserError as e:
            problem = problem or str(e)
    if problem:
        raise UserError(problem + '; move it away to start anew')
    return None, {}, f"there is no checkpoint in {out_dir!r} to resume from; give the --out_dir of a run, or --init_from=auto to start one"

def save_checkpoint(state, paths, keep=1):
    """Write state to each path atomically: after any crash either the old file or the new one is there, whole. With keep above 1
    only the newest keep of the ckpt_ITERATION.pt stay. Raises OSError or RuntimeError; what was not replaced by then stays."""
    folder = os.path.dirname(paths[0])
    part = os.path.join(folder, f'ckpt.{os.getpid()}.tmp') # this process's own: of two runs in a folder each removes the other's, whose save then fails
    state['model'].setdefault('lm_head.weight', state['model']['transformer.wte.weight']) # two names for one matrix
    try:
        for path in paths:
            with open(part, 'wb') as f:
                torch.save(state, f)
                f.flush()
                os.fsync(f.fileno())
            for wait in (1, 4, 16, 0): # Windows replaces no file that somebody reads, as sample.py or a virus scanner may
                with suppress(PermissionError) if wait else nullcontext():
                    os.replace(part, path)
                    break
                time.sleep(wait)
    finally: # a failed write leaves nothing behind
        os.path.exists(part) and os.remove(part)
    if os.name == 'posix' and os.access(folder or '.', os.R_OK):
        fd = os.open(folder or '.', os.O_RDONLY)
        with suppress(OSError): # not every file system can do this
            os.fsync(fd) # so that the renaming outlasts a power cut
        os.close(fd)
    old = by_age(folder, 'ckpt.*.tmp') + (by_age(folder, 'ckpt_[0-9]*.pt')[:-keep] if keep > 1 else [])
    old += by_age(folder, 'ckpt_last.pt') if any(p.endswith('ckpt.pt') for p in paths) else []
    for path in set(old) - set(paths): # what was just written seems old if the clock went back
        os.remove(path)
