"""Overrides a script's settings and settles what every script must agree on about the machine. A script states its settings as
globals (bool, int, float or str, no _ in front) and then runs this file in its own namespace. On the command line the later wins:
    python train.py config/x.py config/y.py --batch_size=32 --learning_rate 1e-3 compile=false
A config file is Python that sees the script's globals; only the settings that it assigns are taken over. A number is converted
if nothing is lost (1e4 -> 10000, 1 -> 1.0) and may be negative only where the default is; text stays as typed; --help lists all.
Besides the settings, now final, this file leaves in the script: refuse, which ends it with a sentence; config, all settings; given,
the names set by hand; rank, local_rank, world_size, from torchrun; device_type, such as 'cuda'; ctx, the autocast around forward passes."""

def refuse(message):
    """End with one line on stderr and exit status 1. A message says what was got, what is possible and what to do."""
    import os, sys
    sys.exit(f"{os.path.basename(__file__)}: {' '.join(str(message).split())}")

def _explain(kind, error, trace):
    """The excepthook: prints a sentence for what users can mend, nothing if a pipe's reader is gone, else Python's traceback."""
    import os, re, sys
    sentence = ' '.join(str(error).split())
    mendable = issubclass(kind, (OSError, KeyboardInterrupt)) or re.search('UserError|No space left', kind.__name__ + sentence)
    if kind.__name__ in ('OutOfMemoryError', 'MemoryError') or re.search("out of memory|(can't allocate|not enough) memory", sentence):
        s = dict(n_embd=768, n_layer=12, batch_size=1, block_size=1024, vocab_size=50304) | globals() | globals().get('config', {}) # for a script without these
        C, L, B, T, V = (s[k] for k in ('n_embd', 'n_layer', 'batch_size', 'block_size', 'vocab_size'))
        steps = ' and raise gradient_accumulation_steps by the same factor' * ('eval_iters' in s) # as only train.py has it
        sentence = "out of memory. " + ("Use --dtype=bfloat16, a lower --num_samples or --max_new_tokens, or a smaller model" if 'num_samples' in s else
            f"Training this shape takes {16 * (12 * L * C * C + V * C) / 1e9:.1f} GB for weights, gradients and moments, and up to {8 * V * B * T / 1e9:.1f} "
            f"GB for a micro-batch's logits. Lower batch_size{steps}, then block_size, or use a smaller model")
    elif kind is BrokenPipeError and not {'config', 'eval_iters'} <= globals().keys(): # train.py, once it runs, is to end in order
        os._exit(1) # at once, for a generator or buffer that the interpreter closes at its end would complain
    elif not mendable or '__file__' not in globals():
        return sys.__excepthook__(kind, error, trace)
    print(f"{os.path.basename(sys.argv[0])}: {sentence or 'stopped'}", file=sys.stderr)

def _configure(space):
    """Apply the command line to the settings in space, a script's globals; return (settings, those given by hand)."""
    import ast, decimal, difflib, dis, os, pathlib, re, sys
    sys.excepthook = _explain
    getattr(sys.stdout, 'reconfigure', dict)(encoding='utf-8', errors='backslashreplace') # as data/prepare.py does, which not all scripts use
    defaults = {k: v for k, v in space.items() if not k.startswith('_') and type(v) in (bool, int, float, str)}
    settings, given = dict(defaults), {}
    switches = {'true': True, '1': True, 'false': False, '0': False}
    from_one_up = ('eval_interval log_interval eval_iters gradient_accumulation_steps batch_size block_size n_layer n_head '
                   'n_embd num_samples max_new_tokens max_seconds max_bad_steps keep_checkpoints context_stride').split()
    choices = dict(optimizer=('adamw', 'muon'), lr_schedule=('cosine', 'wsd'), mode=('train', 'generate'),
                   dtype=('auto', 'float32', 'bfloat16', 'float16'))
    limits = dict(dropout=1, ngram_dropout=1, beta1=1, beta2=1, seed=2 ** 64) # a value must be below this; any other whole number below 2 ** 31
    def unknown(key, where):
        refuse(f"{where}: there is no setting {key!r}; the nearest is {difflib.get_close_matches(key, defaults, 1, 0)[0]!r}, --help lists all")
    def assign(key, value, where):
        kind = bool if key == 'compile' else type(defaults[key]) # its default may be the word auto
        words = switches | {'auto': 'auto'} if key == 'compile' else switches
        wanted = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'text'}[kind] + ' or auto' * (key == 'compile')
        value = float('inf') if isinstance(value, int) and value.bit_length() > 1000 else value # too long to show, so refused below
        try:
            if kind is str:
                result = str(value)
                result.encode() # bytes that are not UTF-8 arrive as surrogates
                if '\0' in result or not isinstance(value, (str, int, float, os.PathLike)):
                    raise ValueError
            elif kind is bool:
                result = words[str(value).lower()]
            else: # None is no limit, as 0 is; a float would round 0.99999999999999999999 to 1
                exact = decimal.Decimal(0 if str(value) == 'None' else str(value))
                if not abs(exact) < 1e300 or kind is int and exact != int(exact):
                    raise ValueError
                result = kind(exact)
        except (ValueError, KeyError, ArithmeticError):
            refuse(f"{where}: {key} takes {wanted}, as in {key}={defaults[key]!r}; got {value!r}")
        least = 1 if key in from_one_up else 0 if kind in (int, float) and defaults[key] >= 0 else None # no limit
        below = limits.get(key, 2 ** 31 if kind is int and defaults[key] < 2 ** 31 else None)
        most = 1 if key in ('cooldown', 'top_p') else None
        if least is not None and result < least or below and result >= below or most and result > most:
            limits_of = [f'{word} {limit}' for word, limit in (('at least', least), ('below', below), ('at most', most)) if limit is not None]
            refuse(f"{where}: {key} must be {' and '.join(limits_of)}, got {result}")
        if defaults[key] in choices.get(key, ()) and result not in choices[key]: # else the setting is a script's own
            refuse(f"{where}: {key} {result!r} is not one of {', '.join(choices[key])}")
        settings[key] = given[key] = result
    def run_file(path):
        found = path if os.path.exists(path) else os.path.join(os.path.dirname(os.path.realpath(space['__file__'])), path)
        try:
            source = pathlib.Path(found).read_text(encoding='utf-8-sig') # -sig skips a byte order mark
        except (OSError, ValueError) as e:
            refuse(f"cannot read {path!r} ({getattr(e, 'strerror', None) or e}): name a config file in UTF-8, or a setting as --key=value")
        before = {**space, **settings, '__file__': path}
        after = dict(before)
        try:
            nodes = list(ast.walk(ast.parse(source)))
            exec(source, after)
        except SyntaxError as e:
            refuse(f"{path}, line {e.lineno}: {e.msg}; a config file is Python: key = value")
        except (Exception, SystemExit) as e:
            refuse(f"{path}: {type(e).__name__}: {e}")
        stored, used = ({n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, kind)} for kind in (ast.Store, ast.Load))
        stored &= {i.argval for i in dis.get_instructions(source) if i.opname == 'STORE_NAME'} # not a function's local names
        used |= {getattr(n, 'id', '') for loop in nodes if isinstance(loop, ast.For) for n in ast.walk(loop.target)} # or loop counters
        for key, value in after.items():
            if key in defaults and (key in stored or value is not before[key]):
                assign(key, value, path)
            elif key in stored and not key.startswith('_') and (key not in used or difflib.get_close_matches(key, defaults, 1, 0.9)):
                unknown(key, path) # neither a setting nor a helper that the file itself uses, or one all but spelled like a setting
    args = sys.argv[1:]
    while args:
        arg = args.pop(0)
        if arg in ('--help', '-h'):
            source = pathlib.Path(space['__file__']).read_text(encoding='utf-8')
            comments = dict(re.findall(r'^(\w+) = [^#\n]*# *(.*)', source, re.M))
            print(ast.get_docstring(ast.parse(source)), 'settings, each --key=value:', sep='\n\n')
            for key, value in defaults.items():
                print(f"  --{key}={value!r}".ljust(42), comments.get(key, ''))
            sys.exit(0)
        key, equals, value = arg.removeprefix('--').partition('=')
        if not arg.startswith('--') and (not equals or not key.isidentifier() or os.path.isfile(arg)): # a folder may be called lr=1
            run_file(arg)
            continue
        if key not in defaults:
            unknown(key, arg.split('=')[0])
        if not equals: # --key value; a switch may stand alone
            alone = (key == 'compile' or type(defaults[key]) is bool) and not (args and args[0].lower() in (*switches, 'auto'))
            if not alone and (not args or args[0].startswith('--')):
                refuse(f"{arg} needs a value: {arg}={defaults[key]!r}")
            value = alone or args.pop(0)
        assign(key, value, 'command line')
    if settings.get('batch_size', 1) * settings.get('block_size', 1) >= 2 ** 31:
        refuse(f"batch_size {settings['batch_size']} times block_size {settings['block_size']} is more than fits any memory; lower batch_size")
    return settings, given

def _settle(settings, given):
    """Turn every 'auto' among the settings into what this machine offers; return the names that scripts share."""
    import contextlib, ctypes, os, sys, torch
    s = dict(device='auto', dtype='auto', compile=False) | settings # a script of one's own need not state these
    rank, local_rank, world_size = (int(os.environ.get(k, d)) for k, d in (('RANK', 0), ('LOCAL_RANK', 0), ('WORLD_SIZE', 1)))
    offers = ['cpu'] # best first
    if accelerator := torch.accelerator.current_accelerator(check_available=True):
        offers = [accelerator.type, *(f'{accelerator.type}:{i}' for i in range(torch.accelerator.device_count())), 'cpu']
    s['device'] = offers[0] if s['device'] == 'auto' else s['device']
    if s['device'] not in offers:
        refuse(f"device {s['device']!r} is not on this machine, which offers {', '.join(offers)}; leave --device out to use the best")
    device, device_type = s['device'], s['device'].split(':')[0]
    if world_size > 1 and device_type != 'cpu':
        device = f'{device_type}:{local_rank}'
        if s['device'] != device_type or device not in offers:
            refuse(f"device {s['device']!r} with {len(offers) - 2} {device_type} device(s): torchrun gives each process one of its "
                   f"own, so use --device={device_type} and no more processes than devices")
    device_type in ('cuda', 'xpu') and torch.accelerator.set_device_index(torch.device(device).index or 0)
    if device_type == 'cpu' and sys.platform == 'linux' and hasattr(libc := ctypes.CDLL(None), 'mallopt'): # glibc
        libc.mallopt(-3, 2 ** 30) or libc.mallopt(-3, 2 ** 25) # M_MMAP_THRESHOLD (2 ** 25 before glibc 2.35): keep freed memory,
        libc.mallopt(-1, 2 ** 31 - 1) # M_TRIM_THRESHOLD: all of it, which the kernel would clear anew at each step
    if s['dtype'] == 'auto': # bfloat16 where the device computes in it natively
        native = device_type == 'xpu' or device_type == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False)
        s['dtype'] = 'bfloat16' if native else 'float16' if device_type == 'cuda' else 'float32'
    ctx = contextlib.nullcontext() if s['dtype'] == 'float32' else torch.autocast(device_type, getattr(torch, s['dtype']))
    if s.get('deterministic'):
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8') # else cuBLAS may differ from run to run
        torch.use_deterministic_algorithms(True)
    elif device_type == 'cuda':
        torch.set_float32_matmul_precision('high') # TF32
        torch.backends.cuda.enable_cudnn_sdp('num_samples' not in s and s.get('mode') != 'generate') # cuDNN plans each length anew
    kernels = {'bfloat16': '_is_mkldnn_bf16_supported', 'float16': '_is_mkldnn_fp16_supported'}.get(s['dtype'])
    if device_type == 'cpu' and kernels and rank == 0 and not (torch.backends.mkldnn.is_available() and getattr(torch.ops.mkldnn, kernels)()):
        print(f"warning: this CPU has no fast {s['dtype']}; float32 can be hundreds of times faster")
    if device_type == 'mps' and kernels and rank == 0:
        print(f"warning: some versions of torch compute attention wrongly in {s['dtype']} on MPS (pytorch's issues 174861 and 195910), but not in float32")
    if s['compile'] == 'auto': # on CUDA, where it pays within minutes; a value given by hand is not second-guessed
        try: # one tiny kernel shows whether the driver, Triton and a C compiler are all there
            s['compile'] = device_type == 'cuda' and torch.compile(lambda x: x * 2 + 1)(torch.ones(2, device=device)).tolist() == [3, 3]
        except Exception as e:
            s['compile'] = False
            rank == 0 and print(f"not compiling, because {type(e).__name__}: {' '.join(str(e).split())[:200]}")
    if 'backend' in s and torch.distributed.is_available():
        ways = list(filter(torch.distributed.is_backend_available, dict.fromkeys((torch.distributed.get_default_backend_for_device(device_type), 'gloo', 'mpi'))))
        s['backend'] = (ways or ['none'])[0] if s['backend'] == 'auto' else s['backend'] # Windows has no NCCL
        if s['backend'] not in ways + ['none', 'nccl'] * (world_size == 1): # nccl is nanoGPT's default; one process uses none
            refuse(f"backend {s['backend']!r} cannot connect processes on {device_type} here, but {' or '.join(ways)} can; leave --backend out to use the best")
    torch.manual_seed(s.get('seed', 1337)) # a script such as nanoGPT's train.py states none
    if rank == 0:
        print('settings given:', ', '.join(f'{k} = {v!r}' for k, v in given.items()) or 'none')
        name = torch.cuda.get_device_name(device) if device_type == 'cuda' else f'{torch.get_num_threads()} threads'
        print(f"device {device} ({name}), computing in {s['dtype']}, compile {s['compile']}, {world_size} process(es), torch {torch.__version__}")
    config = {k: s[k] for k in settings} # no more: a compile that the script does not state would hide Python's
    return dict(config | ({'device': device} if 'device' in settings else {}), config=config, device_type=device_type, ctx=ctx,
                given=set(given), rank=rank, local_rank=local_rank, world_size=world_size)

globals().update(_settle(*_configure(globals())))
del _configure, _settle
