"""
Text to bins in GPT-2 BPE: data/prepare.py beside the plain way, datasets.map one document at a time with tiktoken in a
process a core, on the same JSONL of documents, shuffled paragraphs of a text, in turns:
    python assets/tokenize_speed.py TEXT [--rounds=5]
Times are of whole processes, memory is the peak of the largest of them; all go to results/tokenize-cpu.json.
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from data.prepare import read_text # noqa: E402

def plain(path, folder):
    """The plain way, with the split of data/prepare.py: every tenth document goes to val.bin."""
    import numpy as np
    import tiktoken
    from datasets import load_dataset
    bpe = tiktoken.get_encoding('gpt2')
    def encode(row):
        ids = bpe.encode_ordinary(row['text']) + [bpe.eot_token]
        return {'ids': ids, 'n': len(ids)}
    rows = load_dataset('json', data_files=path, split='train', cache_dir=os.path.join(folder, 'cache'))
    rows = rows.map(encode, remove_columns=['text'], num_proc=os.cpu_count())
    for split, chosen in (('train', [i for i in range(len(rows)) if i % 10]), ('val', range(0, len(rows), 10))):
        part, at = rows.select(chosen), 0
        out = np.memmap(os.path.join(folder, split + '.bin'), np.uint16, 'w+', shape=sum(part['n']))
        for i in range(0, len(part), 1000):
            ids = np.concatenate(part.with_format('numpy')[i:i + 1000]['ids'])
            out[at:at + len(ids)] = ids
            at += len(ids)
        out.flush()

def timed(way, path):
    """Seconds and peak memory in MB of preparing path, and the SHA-256 of the bins."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile('w+') as err:
        shutil.copy(os.path.join(os.path.dirname(HERE), 'data', 'prepare.py'), folder)
        command = {'here': [os.path.join(folder, 'prepare.py'), path, '--name=x', '--tokenizer=gpt2'], 'plain': [__file__, path, '--plain', folder]}[way]
        t0 = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        seconds, bins = time.perf_counter() - t0, []
        if status:
            err.seek(0)
            sys.exit(err.read())
        for split in ('train', 'val'):
            with open(os.path.join(folder, *(['x'] if way == 'here' else []), split + '.bin'), 'rb') as f:
                digest = hashlib.sha256()
                while data := f.read(2 ** 20): # memory taken here would count as the next process's
                    digest.update(data)
                bins.append(digest.digest())
        return seconds, used.ru_maxrss / 1024, bins

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('text')
parser.add_argument('--rounds', type=int, default=5)
parser.add_argument('--plain', help="do it the plain way, into this folder")
args = parser.parse_args()
if args.plain:
    plain(args.text, args.plain)
    sys.exit()
paragraphs = read_text(args.text).split('\n\n')
rows = []
with tempfile.TemporaryDirectory() as place:
    for size in (20, 100):
        path, rng, written = os.path.join(place, f'{size}.jsonl'), random.Random(size), 0
        with open(path, 'w', encoding='utf-8') as f:
            while written < size * 10 ** 6:
                text = '\n\n'.join(rng.choices(paragraphs, k=rng.randint(5, 40)))
                f.write(json.dumps({'text': text}) + '\n')
                written += len(text.encode())
        for i in range(args.rounds if size == 100 else 1):
            both = {way: timed(way, path) for way in (('here', 'plain'), ('plain', 'here'))[i % 2]}
            assert both['here'][2] == both['plain'][2], "the bins differ"
            rows.append(dict(mb=size, **{way: dict(mb_per_s=written / 1e6 / seconds, peak_mb=peak) for way, (seconds, peak, _) in both.items()}))
            print(size, 'MB:', *(f"{way} {rows[-1][way]['mb_per_s']:.2f} MB/s, {rows[-1][way]['peak_mb']:.0f} MB of memory;" for way in both), flush=True)
from compare import write_results # noqa: E402 only now: memory taken before would count as the processes'
ratios = sorted(r['here']['mb_per_s'] / r['plain']['mb_per_s'] for r in rows if r['mb'] == 100)
print(f"median ratio {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")
write_results(os.path.join(HERE, 'results', 'tokenize-cpu.json'), f'python assets/tokenize_speed.py TEXT --rounds={args.rounds}',
              text=os.path.basename(args.text), **{name: version(name) for name in ('tiktoken', 'datasets', 'numpy')},
              ratio=statistics.median(ratios), ratios=ratios, rows=rows)
