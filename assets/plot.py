"""
Draws the curves of runs, or the results of a folder, as SVG or PNG, legible on light and dark; needs matplotlib:
    python assets/plot.py OUT_DIR [OUT_DIR ...] --save=curves.svg     loss, learning rate, gradient norm, tokens/s of metrics.jsonl
    python assets/plot.py --results[=FOLDER]                          assets/results/*.json as scaling-*.svg and loss-*.svg, and tables
"""
import argparse
import glob
import json
import os
import statistics
import sys

try:
    import matplotlib
except ImportError:
    sys.exit("plot.py: drawing needs the package matplotlib: pip install matplotlib")
matplotlib.use('agg') # which saves PNG, SVG and PDF
import matplotlib.pyplot as plt # noqa: E402

GREY = '#808080' # is seen on white and on black
plt.rcParams.update({'svg.hashsalt': 'assets', 'svg.fonttype': 'none', 'figure.facecolor': 'none', 'axes.facecolor': 'none', 'savefig.facecolor': 'none',
                     **{f'{part}.color': GREY for part in ('text', 'xtick', 'ytick', 'grid')}, 'axes.labelcolor': GREY, 'axes.edgecolor': GREY,
                     'axes.grid': True, 'grid.alpha': 0.3, 'legend.framealpha': 0, 'axes.prop_cycle': plt.cycler(
                         color=['#3b82c4', '#e08214', '#3a9d5d', '#c44e52', '#8172b3', '#937860'])})

def events(out_dir):
    """{event: its objects} of a run; after a crash the last line of an iteration counts."""
    path = os.path.join(out_dir, 'metrics.jsonl')
    if not os.path.isfile(path):
        sys.exit(f"plot.py: there is no {path}; give the out_dir of a run")
    found = {}
    with open(path, encoding='utf-8', errors='replace') as f:
        for line in f:
            try:
                e = json.loads(line)
            except (ValueError, RecursionError):
                e = None
            if not isinstance(e, dict) or not {'event', 'iter'} <= e.keys(): # cut short by a crash
                continue
            if e['event'] == 'start': # anew, or from a save: what was made after it counts no more
                found = {event: {i: x for i, x in by_iter.items() if i < e['iter'] + (event == 'eval')} for event, by_iter in found.items()}
            found.setdefault(e['event'], {})[e['iter']] = e
    return {event: [by_iter[i] for i in sorted(by_iter)] for event, by_iter in found.items()}

def draw_runs(out_dirs, path):
    figure, ((loss, lr), (norm, rate)) = plt.subplots(2, 2, figsize=(11, 7), layout='constrained')
    for k, out_dir in enumerate(out_dirs):
        name, run, color = os.path.basename(os.path.normpath(out_dir)), events(out_dir), f'C{k}'
        logs, evals = run.get('log', []), run.get('eval', [])
        iters = [e['iter'] for e in logs]
        loss.plot(iters, [e['loss'] for e in logs], color=color, alpha=0.3, lw=0.8)
        loss.plot([e['iter'] for e in evals], [e['val'] for e in evals], color=color, marker='o', ms=3, label=name)
        lr.plot(iters, [e['lr'] for e in logs], color=color)
        norm.plot(iters, [e['norm'] for e in logs], color=color, lw=0.8)
        rate.plot(iters, [e['tokens_per_s'] for e in logs], color=color, lw=0.8)
    for axes, label in ((loss, 'loss: batches pale, val dotted'), (lr, 'learning rate'), (norm, 'gradient norm'), (rate, 'tokens/s')):
        axes.set(xlabel='iteration', ylabel=label)
    loss.legend()
    figure.savefig(path, metadata={'Date': None})
    print(f"drew {path}")

def read(path):
    with open(path, encoding='utf-8') as f:
        return json.load(f)

def draw_scaling(path):
    result = read(path)
    rows, base = result['rows'], result['rows'][0]
    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4), layout='constrained')
    for k, key in enumerate(grown := ('block_size', 'batch_size', 'n_layer', 'n_embd')):
        some = sorted((r for r in rows if all(r[o] == base[o] for o in grown if o != key)), key=lambda r: r[key])
        for axes, y in ((time, 'ms'), (memory, 'memory_mb')):
            axes.loglog([r['gflop'] for r in some], [r[y] for r in some], marker='o', ms=4, color=f'C{k}', label=f'{key} {some[0][key]} to {some[-1][key]}')
    time.set(xlabel='GFLOP a step', ylabel='ms a step')
    memory.set(xlabel='GFLOP a step', ylabel='peak memory, MB')
    time.legend()
    figure.savefig(path.replace('.json', '.svg'), metadata={'Date': None})
    print(f"drew {path.replace('.json', '.svg')}: time grows as FLOP^{result['exponent']:.2f}")

def draw_loss(path):
    """Draw the curves of whole runs, nanoGPT's and ours, and print what they came to, in Markdown."""
    result, runs = read(path), {}
    for r in sorted(result['rows'], key=lambda r: r['who'] != 'nanoGPT'):
        configs = ' + '.join(os.path.basename(c).removesuffix('.py') for c in r['config'].split())
        runs.setdefault('nanoGPT' if r['who'] == 'nanoGPT' else f'here, {configs}', []).append(r)
    figure, axes = plt.subplots(figsize=(9, 5), layout='constrained')
    for k, (name, some) in enumerate(runs.items()):
        for r in some:
            axes.plot(*zip(*r['curve'], strict=True), color=f'C{k}', lw=0.9, alpha=0.6)
        axes.plot([r['seconds'] for r in some], [r['whole_val'] for r in some], 'o', ms=6, color=f'C{k}', label=f'{name}, {len(some)} seeds')
    least = min(r['whole_val'] for r in result['rows'])
    axes.set(xlabel='seconds since the start of the process', ylabel='val loss: printed, and as dots over all of val.bin', xlim=(0, None),
             ylim=(least - 0.1, least + 1))
    axes.legend()
    figure.savefig(path.replace('.json', '.svg'), metadata={'Date': None})
    print(f"drew {path.replace('.json', '.svg')}")
    spread = lambda values, form: f"{statistics.mean(values):{form}}, {min(values):{form}} to {max(values):{form}}"
    theirs = {r['seed']: r['seconds'] for r in runs.get('nanoGPT', ())}
    print("| run | seeds | loss over all of val.bin, mean and spread | seconds, mean and spread | seconds there / here, same seed |\n"
          "| --- | --- | --- | --- | --- |")
    for name, some in runs.items():
        ratios = [theirs[r['seed']] / r['seconds'] for r in some if r['seed'] in theirs]
        print(f"| {name} | {', '.join(str(r['seed']) for r in some)} | {spread([r['whole_val'] for r in some], '.4f')} | "
              f"{spread([r['seconds'] for r in some], '.1f')} | {spread(ratios, '.2f') if ratios else ''} |")
    print(f"`{result['command']}`, {result['device']}, torch {result['torch']}\n")

def table(folder):
    """What compare.py measured, in Markdown."""
    print("| what | nanoGPT | here | ratio, least to most | command |\n| --- | --- | --- | --- | --- |")
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.json'))):
        result = read(path)
        for row in result['rows'] if 'ratio' in result['rows'][0] else ():
            print(f"| {os.path.basename(path).split('-')[0]}: {row['what']} | {statistics.median(row['theirs']):,.1f} | {statistics.median(row['ours']):,.1f} | "
                  f"{row['ratio']:.2f}, {row['least']:.2f} to {row['most']:.2f} | `{result['command']}`, {result['device']}, torch {result['torch']} |")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('out_dirs', nargs='*')
parser.add_argument('--save', default='curves.svg')
parser.add_argument('--results', nargs='?', const=os.path.join(os.path.dirname(os.path.abspath(__file__)), 'results'))
args = parser.parse_args()
if not args.out_dirs and not args.results:
    sys.exit("plot.py: give the out_dirs of runs, or --results")
if not os.path.isdir(os.path.dirname(args.save) or '.'):
    sys.exit(f"plot.py: there is no folder for {args.save}; make it, or give another --save")
if (kind := os.path.splitext(args.save)[1][1:]) not in (kinds := plt.figure().canvas.get_supported_filetypes()):
    sys.exit(f"plot.py: --save={args.save} is of no kind that can be drawn; there are {', '.join(kinds)}")
if args.out_dirs:
    draw_runs(args.out_dirs, args.save)
if args.results:
    for kind, draw in (('scaling', draw_scaling), ('loss', draw_loss)):
        for path in sorted(glob.glob(os.path.join(glob.escape(args.results), kind + '-*.json'))):
            draw(path)
    table(args.results)
