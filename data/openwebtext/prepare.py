"""
OpenWebText in GPT-2 BPE: 8,013,769 documents, about 9.0e9 tokens in train.bin (17 GB), about 4.4e6 in val.bin.

Needs the packages datasets and tiktoken, and 73 GB of disk, 55 of them for the download in Hugging Face's cache. The same command
continues a run that was stopped. --max_docs=N shuffles all documents and takes the first N; --source=FOLDER reads the .parquet or
.jsonl files in FOLDER, from their field "text", and downloads nothing.
"""
import argparse
import glob
import os
import shutil
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import package, stop, tiktoken_bpe, write_bins

def load(source):
    """All documents, as a dataset with a column text."""
    datasets = package('datasets', "OpenWebText")
    if source:
        for kind, ending in (('parquet', 'parquet'), ('json', 'jsonl')):
            if files := sorted(glob.glob(os.path.join(glob.escape(source), '*.' + ending))):
                try:
                    return datasets.load_dataset(kind, data_files=[glob.escape(path) for path in files], split='train')
                except Exception as e: # half a file, or none of its kind
                    stop(f"cannot read the {kind} files in {source} ({type(e).__name__}: {str(e)[:200]})")
        stop(f"there is no .parquet or .jsonl file in {source}")
    cache = str(datasets.config.HF_DATASETS_CACHE)
    os.makedirs(cache, exist_ok=True)
    size, _, free = shutil.disk_usage(cache)
    print(f"OpenWebText: 13 GB to download and 42 GB to unpack in {cache}, where {free / 1e9:.0f} GB are free; 18 GB of bins; then tokenizing, "
          f"about {80 / (os.cpu_count() or 1):.0f} minutes on {os.cpu_count()} cores", flush=True)
    if size and free < 55e9 and not glob.glob(os.path.join(glob.escape(cache), '*openwebtext*')): # some of it may be there
        stop(f"{free / 1e9:.0f} GB are free in {cache}, but the download needs 55 GB; free some, or set HF_HOME to a larger disk")
    errors = []
    for revision in ('main', 'refs/convert/parquet'): # the second is the hub's own conversion, in case main holds a script again
        try:
            return datasets.load_dataset('Skylion007/openwebtext', split='train', revision=revision, num_proc=os.cpu_count())
        except Exception as e:
            errors.append(f'{type(e).__name__}: {e}'.splitlines()[0][:150])
    stop(f"could not load Skylion007/openwebtext: {'; '.join(errors)}")

if __name__ == '__main__': # datasets may start processes that import this file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: stop(f"{message}; --help says more")
    parser.add_argument('--max_docs', type=int, default=0, help="0: all")
    parser.add_argument('--source', default='', help="a local folder instead of the download")
    parser.add_argument('--out', default=folder, help="the folder for the bins")
    args = parser.parse_args()
    if args.max_docs < 0 or args.max_docs == 1:
        stop(f"max_docs {args.max_docs} cannot be split; give at least 2, or 0 for all")
    tiktoken_bpe('gpt2') # before the download
    docs = load(args.source)
    if len(docs) < 2:
        stop(f"{args.source or 'the dataset'} has {len(docs)} documents, which cannot be split")
    if getattr(docs.features.get('text'), 'dtype', None) not in ('string', 'large_string', 'string_view'):
        stop(f"{args.source or 'the dataset'} has no field 'text' of strings, only {', '.join(docs.column_names)}")
    if not args.source and len(docs) != 8_013_769:
        print(f"warning: OpenWebText has {len(docs):,} documents here, not 8,013,769; the bins will differ from the published ones")
    size = docs.data.nbytes / len(docs) # of a document
    if args.max_docs:
        docs = docs.shuffle(seed=2357).select(range(min(args.max_docs, len(docs))))
    parts = docs.train_test_split(test_size=0.0005, seed=2357, shuffle=True) # nanoGPT's split

    def pieces_from(n):
        for split, rows in (('val', parts['test']), ('train', parts['train'])):
            for i in range(n, len(rows), 1000):
                yield from ((text or '', True, split) for text in rows[i:i + 1000]['text'])
            n = max(0, n - len(rows))
    write_bins(args.out, pieces_from, None, int(size * len(docs)), [parts['train'][i]['text'] for i in (0, -1)] + [len(docs)])
