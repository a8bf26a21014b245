"""
Overrides a script's settings and settles what every script must agree on about the machine.

A script states its settings as plain globals and then runs this file in its own namespace:
    exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py'), encoding='utf-8').read())
On the command line, left to right, the later wins:
    python train.py config/x.py config/y.py --batch_size=32 --learning_rate 1e-3 compile=false
A config file is Python that sees the script's globals; of what it assigns only settings are taken over. A number is
converted when nothing is lost (1e4 -> 10000, 1 -> 1.0), text stays as typed, --help lists all. A mistake ends the script
with one line on stderr and exit status 1.

What it leaves behind, next to the settings, which are now final:
    config       every setting with the value in force, for checkpoints and logs
    given        names of the settings that were set by hand
    rank, local_rank, world_size    this process among those that torchrun started; 0, 0, 1 without it
    device_type  'cuda', 'xpu', 'mps' or 'cpu': what autocast and the optimizer want to know
    ctx          the precision of forward passes, as a context to enter
"""

def _configure(space, argv):
    """Read argv over the settings in space, a script's globals; return (settings, names given by hand)."""
    import ast, difflib, os, re, sys
    script = os.path.basename(space['__file__'])
    plain = (bool, int, float, str)
    defaults = {k: v for k, v in space.items() if not k.startswith('_') and type(v) in plain}
    settings, given = dict(defaults), {}
    at_least = dict(eval_interval=1, log_interval=1, eval_iters=1, gradient_accumulation_steps=1, batch_size=1,
                    block_size=1, n_layer=1, n_head=1, n_embd=1, num_samples=1, max_new_tokens=1, max_bad_steps=1, keep_checkpoints=1)

    def stop(message):
        sys.exit(f"{script}: {' '.join(message.split())}") # one line, whatever an exception's text has

    def read(path):
        try:
            with open(path, encoding='utf-8-sig') as f: # some editors begin a file with a mark
                return f.read()
        except UnicodeDecodeError:
            stop(f"{path} is not UTF-8 text; save it as UTF-8")
        except (OSError, ValueError) as e:
            stop(f"cannot read {path!r} ({getattr(e, 'strerror', None) or e}): name a config file, or a setting as --key=value")

    def unknown(key, where):
        nearest = difflib.get_close_matches(key, defaults, 1, 0)[0]
        stop(f"{where}: there is no setting {key!r}; the nearest is {nearest!r}, --help lists all")

    def assign(key, value, where):
        kind = bool if key == 'compile' else type(defaults[key]) # its default is the word auto
        wanted = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'text'}[kind]
        try:
            if kind is str:
                if not isinstance(value, (str, int, float, os.PathLike)):
                    raise ValueError
                result = str(value)
                result.encode() # bytes that are not UTF-8 arrive as surrogates
            elif kind is bool:
                result = ({'true': True, '1': True, 'false': False, '0': False} | ({'auto': 'auto'} if key == 'compile' else {}))[str(value).lower()]
            elif str(value) == 'None': # a limit of None is no limit, as 0 is
                result = kind(0)
            else:
                try:
                    result = int(str(value))
                except ValueError:
                    result = float(str(value))
                if kind(result) != result or abs(result) == float('inf'): # nan differs from itself
                    raise ValueError
                result = kind(result)
        except (ValueError, KeyError, OverflowError):
            stop(f"{where}: {key} takes {wanted}, as in {key}={defaults[key]!r}; got {value!r}")
        if kind in (int, float) and result < at_least.get(key, min(0, defaults[key])):
            stop(f"{where}: {key} must be at least {at_least.get(key, 0)}, got {result}")
        if key == 'seed' and result >= 2 ** 64:
            stop(f"{where}: seed must be below 2**64, got {result}")
        if key in ('dropout', 'beta1', 'beta2') and result >= 1:
            stop(f"{where}: {key} must be below 1, got {result}")
        settings[key] = given[key] = result

    def run_file(path):
        beside = os.path.join(os.path.dirname(os.path.abspath(space['__file__'])), path)
        source = read(beside if not os.path.exists(path) and os.path.exists(beside) else path)
        before = {**space, **settings, '__file__': path}
        after = dict(before)
        try:
            names = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)]
            exec(source, after)
        except SyntaxError as e:
            stop(f"{path}, line {e.lineno}: {e.msg}; a config file is Python: key = value")
        except Exception as e:
            stop(f"{path}: {type(e).__name__}: {e}")
        stored, used = ({n.id for n in names if isinstance(n.ctx, kind)} for kind in (ast.Store, ast.Load))
        for key, value in after.items():
            if key in defaults:
                if key in stored or value is not before[key]:
                    assign(key, value, path)
            elif key in stored and not key.startswith('_') and key not in used:
                unknown(key, path) # neither a setting nor a helper that the file itself uses

    def show_help():
        source = read(space['__file__'])
        comments = dict(re.findall(r'^(\w+) = [^#\n]*# *(.*)', source, re.M))
        print(ast.get_docstring(ast.parse(source)), 'settings, each --key=value:', sep='\n\n')
        for key, value in defaults.items():
            print(f"  --{key}={value!r}".ljust(42), comments.get(key, ''))
        sys.exit(0)

    args = list(argv)
    while args:
        arg = args.pop(0)
        if arg in ('--help', '-h'):
            show_help()
        match = re.fullmatch(r'(?:--)?([A-Za-z_]\w*)=(.*)', arg, re.S)
        if match and not os.path.isfile(arg): # a folder may be called lr=1
            key, value = match.groups()
        elif arg.startswith('--'):
            key, value = arg[2:].split('=')[0], None
        else:
            run_file(arg)
            continue
        if key not in defaults:
            unknown(key, arg.split('=')[0])
        if value is None: # --key value; a switch may stand alone
            switch = key == 'compile' or type(defaults[key]) is bool
            if switch and not (args and args[0].lower() in ('true', 'false', '0', '1', 'auto')):
                value = True
            elif args and not args[0].startswith('--'):
                value = args.pop(0)
            else:
                stop(f"{arg} needs a value: {arg}={defaults[key]!r}")
        assign(key, value, 'command line')
    return settings, given

def _settle(s, given):
    """Turn every 'auto' among the settings s into what this machine offers; return the names that scripts share."""
    import contextlib, os, sys
    import torch
    script = os.path.basename(__file__)
    rank, local_rank, world_size = (int(os.environ.get(k, d)) for k, d in (('RANK', 0), ('LOCAL_RANK', 0), ('WORLD_SIZE', 1)))

    # device: the accelerator if there is one
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    best = accelerator.type if accelerator else 'cpu'
    if s['device'] == 'auto':
        s['device'] = best
    try:
        wanted = torch.device(s['device'])
        usable = wanted.type in ('cpu', best) and (wanted.index or 0) < (torch.accelerator.device_count() if wanted.type != 'cpu' else 1)
    except RuntimeError:
        usable = False
    if not usable:
        count = torch.accelerator.device_count() if accelerator else 0
        offers = ['cpu', *([best] if accelerator else []), *(f'{best}:{i}' for i in range(count))]
        sys.exit(f"{script}: device {s['device']!r} is not on this machine, which offers {', '.join(offers)}; "
                 "leave --device out to take the best")
    device, device_type = s['device'], wanted.type
    if world_size > 1 and device_type != 'cpu':
        if wanted.index is not None or local_rank >= torch.accelerator.device_count():
            sys.exit(f"{script}: {torch.accelerator.device_count()} {device_type} device(s), device={device!r}: torchrun gives "
                     f"each process one of its own, so give --device={device_type} and no more processes than devices")
        device = f'{device_type}:{local_rank}'
    if device_type != 'cpu' and device_type != 'mps':
        torch.accelerator.set_device_index(torch.device(device).index or 0)

    # precision: bfloat16 where the device itself computes in it, emulation does not count
    if s['dtype'] == 'auto':
        native = {'cuda': lambda: torch.cuda.is_bf16_supported(including_emulation=False), 'xpu': lambda: True}
        s['dtype'] = 'float32' if device_type not in native else 'bfloat16' if native[device_type]() else 'float16'
    if s['dtype'] not in ('float32', 'bfloat16', 'float16'):
        sys.exit(f"{script}: dtype {s['dtype']!r} is not one of float32, bfloat16, float16")
    ctx = contextlib.nullcontext() if s['dtype'] == 'float32' else torch.autocast(device_type, getattr(torch, s['dtype']))
    if s.get('deterministic'):
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8') # without it cuBLAS may differ from run to run
        torch.use_deterministic_algorithms(True)
    elif device_type == 'cuda':
        torch.set_float32_matmul_precision('high') # TF32
    if device_type == 'cpu' and s['dtype'] != 'float32' and rank == 0:
        kernels = torch.ops.mkldnn if torch.backends.mkldnn.is_available() else None
        if not kernels or not (kernels._is_mkldnn_bf16_supported if s['dtype'] == 'bfloat16' else kernels._is_mkldnn_fp16_supported)():
            print(f"warning: no fast {s['dtype']} on this CPU; float32 can be hundreds of times faster")

    # compilation: on CUDA, where it pays within minutes; asked for by hand it is not second-guessed
    if s['compile'] == 'auto':
        s['compile'] = device_type == 'cuda'
        if s['compile']:
            try: # one tiny kernel shows whether the driver, Triton and a C compiler are all there
                torch.compile(lambda x: x * 2 + 1)(torch.ones(2, device=device))
            except Exception as e:
                s['compile'] = False
                if rank == 0:
                    print(f"not compiling, because {type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}")
    if s.get('backend') == 'auto':
        s['backend'] = 'nccl' if device_type == 'cuda' else 'gloo'
    torch.manual_seed(s['seed'])
    if rank == 0:
        if given:
            print('settings given: ' + ', '.join(f'{k} = {v!r}' for k, v in given.items()))
        name = torch.cuda.get_device_name(device) if device_type == 'cuda' else f'{torch.get_num_threads()} threads'
        print(f"device {device} ({name}), computing in {s['dtype']}, compile {s['compile']}, {world_size} process(es), torch {torch.__version__}")
    return dict(s, config=dict(s), device=device, device_type=device_type, ctx=ctx, given=set(given),
                rank=rank, local_rank=local_rank, world_size=world_size)

import sys as _sys
globals().update(_settle(*_configure(globals(), _sys.argv[1:])))
del _configure, _settle, _sys
