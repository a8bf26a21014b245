"""
OpenWebText in GPT-2 BPE: 8,013,769 documents, about 9.0e9 tokens to train on (17 GB), about 4.4e6 to measure with.

Needs the packages datasets and tiktoken, and 75 GB of disk, most of it for the download in Hugging Face's cache. It can be
stopped and started again. --max_docs=N takes only the first N documents after shuffling; --source=FOLDER reads .parquet
or .jsonl files with a field "text" from there and downloads nothing.
"""
import argparse
import glob
import os
import shutil
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import gpt2_bpe, stop, write_documents

class Texts:
    """The field text of rows, so that a slice of it is a list of strings."""
    def __init__(self, rows):
        self.rows = rows
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, rows):
        return self.rows[rows]['text']

def load(source):
    """All documents, as a dataset with a column text."""
    try:
        from datasets import load_dataset
    except ImportError:
        stop("OpenWebText needs the package datasets: pip install datasets")
    if source:
        files = {kind: sorted(glob.glob(os.path.join(glob.escape(source), '*.' + ending)))
                 for kind, ending in (('parquet', 'parquet'), ('json', 'jsonl'))}
        kind = next((k for k in files if files[k]), None)
        if not kind:
            stop(f"there is no .parquet or .jsonl file in {source}")
        try:
            return load_dataset(kind, data_files=files[kind], split='train')
        except Exception as e: # half a file, or none of its kind
            stop(f"cannot read the {kind} files in {source} ({type(e).__name__}: {str(e)[:200]})")
    errors = []
    for revision in ('main', 'refs/convert/parquet'): # the hub's own conversion, should main hold a script again
        try:
            return load_dataset('Skylion007/openwebtext', split='train', revision=revision, num_proc=os.cpu_count())
        except Exception as e:
            errors.append(f'{type(e).__name__}: {e}'.splitlines()[0][:150])
    stop(f"could not load Skylion007/openwebtext: {'; '.join(errors)}")

if __name__ == '__main__': # datasets may start processes that import this file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: stop(f"{message}; --help says more")
    parser.add_argument('--max_docs', type=int, default=0, help="0: all")
    parser.add_argument('--source', default='', help="a local folder instead of the download")
    parser.add_argument('--out', default=folder, help="where the bins go")
    args = parser.parse_args()
    if args.max_docs < 0 or args.max_docs == 1:
        stop(f"max_docs {args.max_docs} cannot be split; give at least 2, or 0 for all")
    os.makedirs(args.out, exist_ok=True)
    bpe = gpt2_bpe()
    free = shutil.disk_usage(args.out).free / 1e9
    if not args.source and not args.max_docs and free < 75:
        stop(f"{free:.0f} GB are free here, but the bins need 17 GB and the download 55 GB; free some, or give --max_docs")
    docs = load(args.source)
    if len(docs) < 2:
        stop(f"{args.source or 'the dataset'} has {len(docs)} documents, which cannot be split")
    if getattr(docs.features.get('text'), 'dtype', None) not in ('string', 'large_string'):
        stop(f"{args.source or 'the dataset'} has no field 'text' of strings, only {', '.join(docs.column_names)}")
    if args.max_docs:
        docs = docs.shuffle(seed=2357).select(range(min(args.max_docs, len(docs))))
    parts = docs.train_test_split(test_size=0.0005, seed=2357, shuffle=True) # nanoGPT's split
    for split, name in (('val', 'test'), ('train', 'train')):
        write_documents(os.path.join(args.out, split + '.bin'), Texts(parts[name]), bpe)
