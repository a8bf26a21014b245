"""
Turns text into data/NAME/{train,val}.bin and meta.pkl, and reads them again: what a dataset is, is said here, once, for
data/*/prepare.py and for the scripts.

your own text, a file or folders of .txt, .md or .py:
    python data/prepare.py notes.txt --name=notes                    by characters
    python data/prepare.py books/ more/ --name=books --tokenizer=gpt2    in GPT-2 BPE, <|endoftext|> after each file
The last tenth of the text is kept to measure with, or every tenth file if there are ten or more.
"""
import argparse
import hashlib
import http.client
import io
import json
import os
import pickle
import sys
import urllib.request

import numpy as np
from tqdm import tqdm

SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')

def stop(message):
    """End the script that runs with a sentence and status 1."""
    sys.exit(f"{os.path.basename(sys.argv[0])}: {' '.join(str(message).split())}")

# ---- writing -----------------------------------------------------------------------------------------------------------
def write_whole(path, data):
    """Write bytes under another name first, so that path never holds a part of them."""
    with open(path + '.tmp', 'wb') as f:
        f.write(data)
    os.replace(path + '.tmp', path)

def read_text(path):
    """The text of a UTF-8 file, without the mark that some editors begin one with."""
    try:
        with open(path, encoding='utf-8-sig') as f:
            text = f.read()
    except UnicodeDecodeError as e:
        stop(f"{path} is not UTF-8 text (byte {e.start}); convert it, for example with iconv")
    except OSError as e:
        stop(f"cannot read {path} ({e.strerror})")
    return text

def enough(text, path):
    """text, if there is any to speak of."""
    if len(text) < 100:
        stop(f"{path} has {len(text)} characters, too few to learn from")
    return text

def fetched_text(path, url, sha256):
    """The text in path; fetched from url first if it is not there. A file that was put there by hand is taken as it is."""
    if not os.path.exists(path):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                data = answer.read()
        except (OSError, http.client.HTTPException) as e: # urllib's errors are OSErrors; a body cut short is not
            stop(f"could not fetch {url} ({e}); put the file at {path} by hand")
        if hashlib.sha256(data).hexdigest() != sha256:
            stop(f"what {url} answered is not the file expected; nothing was kept, put the file at {path} by hand")
        write_whole(path, data)
    return enough(read_text(path), path)

def parted(text):
    """The first nine tenths, to train on, and the rest, to measure with."""
    return text[:int(len(text) * 0.9)], text[int(len(text) * 0.9):]

def char_codec(text):
    """The tables of meta.pkl for a model of single characters: each character of text, in order, gets the next id."""
    chars = sorted(set(text))
    return {'vocab_size': len(chars), 'stoi': {c: i for i, c in enumerate(chars)}, 'itos': dict(enumerate(chars))}

def write_bin(path, ids, dtype='uint16'):
    """Token ids as a bare file of dtype, little-endian. Ids that do not fit are refused, not wrapped."""
    ids = np.asarray(ids)
    if len(ids) and not 0 <= ids.min() <= ids.max() <= np.iinfo(dtype).max:
        stop(f"ids up to {ids.max()} do not fit {dtype}; {path} was not written")
    write_whole(path, ids.astype(np.dtype(dtype).newbyteorder('<')).tobytes())
    print(f"{path}: {len(ids):,} tokens")

def write_chars(folder, train, val):
    """train.bin, val.bin and meta.pkl of a character model in folder."""
    codec = char_codec(train + val)
    for name, text in (('train', train), ('val', val)):
        write_bin(os.path.join(folder, name + '.bin'), [codec['stoi'][c] for c in text])
    write_whole(os.path.join(folder, 'meta.pkl'), pickle.dumps(codec))
    print(f"vocabulary of {codec['vocab_size']}: {''.join(codec['stoi'])!a}")

def write_documents(path, documents, bpe, chunk=1000):
    """
    GPT-2 BPE of documents, a sequence whose slices are lists of texts, to path, <|endoftext|> after each. Memory stays flat;
    a run that is stopped goes on with the next chunk.
    """
    part, mark = path + '.part', path + '.part.json' # what is written, and how much of it counts
    done, size = 0, 0
    same = hashlib.sha256('\0'.join([str(len(documents)), *documents[:1], *documents[-1:]]).encode()).hexdigest()
    if os.path.exists(part) and os.path.exists(mark):
        with open(mark, encoding='utf-8') as f:
            done, size, of = json.load(f)
        if of != same or os.path.getsize(part) < size: # other documents, or the end was lost with the power
            done, size = 0, 0
    with open(part, 'r+b' if size else 'wb') as f, tqdm(total=len(documents), initial=done, desc=path, unit='doc', disable=None) as bar:
        f.truncate(size)
        f.seek(size)
        while done < len(documents):
            texts = documents[done:done + chunk]
            rows = bpe.encode_ordinary_batch(texts, num_threads=os.cpu_count())
            f.write(np.array([i for row in rows for i in (*row, bpe.eot_token)], dtype='<u2').tobytes())
            f.flush()
            done += len(texts)
            write_whole(mark, json.dumps([done, f.tell(), same]).encode())
            bar.update(len(texts))
    os.replace(part, path)
    if os.path.exists(mark):
        os.remove(mark)
    print(f"{path}: {os.path.getsize(path) // 2:,} tokens")

def gpt2_bpe():
    """tiktoken's GPT-2 encoding."""
    try:
        import tiktoken
    except ImportError:
        stop("GPT-2 BPE needs the package tiktoken: pip install tiktoken")
    try:
        return tiktoken.get_encoding('gpt2')
    except (OSError, ValueError) as e: # no network, or something else in the tables' place
        stop(f"tiktoken could not fetch GPT-2's tables ({' '.join(str(e).split())[:200]})")

# ---- reading -----------------------------------------------------------------------------------------------------------
def find_data(dataset):
    """The folder of a dataset: data/dataset here, or else beside this file; None if there is neither."""
    folders = os.path.join('data', dataset), os.path.join(os.path.dirname(os.path.abspath(__file__)), dataset)
    return next(filter(os.path.isdir, folders), None)

class Tokens:
    """
    A split of the dataset in folder, in windows of T ids and the next. Ends the script with a sentence if the bin is missing,
    cut short, shorter than a window, or holds an id from vocab_size up, which on a GPU would be an assertion without a name.
    """
    def __init__(self, folder, split, meta, vocab_size, T):
        self.path, self.dtype = os.path.join(folder, split + '.bin'), np.dtype((meta or {}).get('dtype', 'uint16'))
        self.vocab_size, self.T = vocab_size, T
        if not os.path.isfile(self.path):
            script = os.path.join(folder, 'prepare.py')
            stop(f"{self.path} is missing: run python {script if os.path.exists(script) else 'data/prepare.py TEXT --name=NAME'}")
        size = os.path.getsize(self.path)
        if size == 0 or size % self.dtype.itemsize:
            stop(f"{self.path} has {size} bytes, no whole number of {self.dtype} tokens: it is cut short or of another kind, prepare it again")
        if len(self) <= T:
            stop(f"{self.path} has {len(self)} tokens, fewer than block_size {T} and the one to predict; give a smaller --block_size")
        self.checked(self.ids()[:10_000_000]) # the rest as it is read

    def __len__(self):
        return os.path.getsize(self.path) // self.dtype.itemsize

    def ids(self):
        """All ids, mapped from the disk anew at each call, so that the pages of a long run are given back."""
        return np.memmap(self.path, self.dtype, mode='r')

    def checked(self, ids):
        if ids.max() >= self.vocab_size:
            stop(f"{self.path} holds the id {ids.max()}, but the model's ids end at {self.vocab_size - 1}: the data, its meta.pkl "
                 "and the weights do not belong together; prepare the data again")
        return ids

    def windows(self, starts):
        """The windows that begin at starts (B): int64 (B, T + 1)."""
        return self.checked(self.ids()[starts[:, None] + np.arange(self.T + 1)]).astype(np.int64)

def on_device(rows, device):
    """Inputs and targets, each (B, T), of windows (B, T + 1), on their way to the device."""
    import torch # not needed to prepare data
    rows = torch.from_numpy(rows)
    rows = (rows.pin_memory() if 'cuda' in device else rows).to(device, non_blocking=True)
    return rows[:, :-1], rows[:, 1:]

class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings and containers, and refuses anything that would import a name."""
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")

def check_codec(meta):
    """Raise TypeError or KeyError unless the tables of a meta.pkl have one text for each of its ids."""
    V, stoi, itos = (meta[k] for k in ('vocab_size', 'stoi', 'itos'))
    if not (type(V) is int and V == len(itos) > 0 and meta.get('dtype', 'uint16') in ('uint16', 'uint32')
            and all(type(itos[i]) is str for i in range(V)) and all(type(s) is str and type(i) is int and 0 <= i < V for s, i in stoi.items())):
        raise TypeError("its tables stoi and itos do not pair text with ids")

def load_meta(path):
    """The dict in a meta.pkl; None if there is no such file, which means GPT-2 BPE. A bad one ends the script."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, 'rb') as f:
            meta = PlainUnpickler(io.BytesIO(f.read())).load()
        check_codec(meta)
    except Exception as e:
        stop(f"{path} is no meta.pkl of plain data ({type(e).__name__}: {e}): not loaded")
    return meta

def get_codec(meta):
    """
    (encode: text -> ids, decode: ids -> text, n_vocab, id of <|endoftext|> or None) of a meta.pkl's content; without one
    GPT-2 BPE, which needs tiktoken.
    """
    if meta is None:
        bpe = gpt2_bpe()
        return (lambda text: bpe.encode(text, allowed_special={'<|endoftext|>'})), bpe.decode, bpe.n_vocab, bpe.eot_token
    try:
        check_codec(meta)
    except Exception as e:
        stop(f"the model's alphabet is damaged ({type(e).__name__}: {e})")
    stoi, itos = meta['stoi'], meta['itos']
    def encode(text):
        unknown = sorted(set(text) - set(stoi))
        if unknown:
            stop(f"the model never saw {' '.join(map(repr, unknown))}; it knows {''.join(sorted(stoi))!r}")
        return [stoi[c] for c in text]
    return encode, lambda ids: ''.join(itos[i] for i in ids), meta['vocab_size'], None

def read_prompts(start):
    """The prompts that a text stands for: itself, what is in FILE:name, or each line of LINES:name."""
    kind, colon, name = start.partition(':')
    if not colon or kind not in ('FILE', 'LINES'):
        return [start]
    return [read_text(name)] if kind == 'FILE' else read_text(name).splitlines()

class Text:
    """The text of a sample as its ids arrive, in whole characters, until it has n of them or an id or a text that ends it."""
    def __init__(self, prompt, decode, n, end_of_text=None, stop=''):
        self.decode, self.n, self.end_of_text, self.stop = decode, n, end_of_text, stop
        self.text, self.ids, self.made, self.shown, self.over = decode(prompt), [], 0, 0, False # ids are not yet in text
        self.begin = len(self.text) # of what is new

    def add(self, ids):
        """Take ids in, up to what ends the text."""
        if self.over:
            return
        self.made += len(ids)
        self.over = self.made >= self.n or self.end_of_text in ids
        self.ids += ids[:ids.index(self.end_of_text)] if self.end_of_text in ids else ids
        piece = self.decode(self.ids)
        if self.over or not piece.endswith('\ufffd'): # which stands for the beginning of a character
            self.text, self.ids = self.text + piece, []
        if self.stop and self.stop in self.text[self.begin:]:
            self.text, self.over = self.text[:self.text.index(self.stop, self.begin)], True

    def fresh(self):
        """What is certain of the text and was not returned before: not what may be the beginning of stop."""
        held = 0 if self.over else max(k for k in range(len(self.stop) or 1) if self.text.endswith(self.stop[:k]))
        new, self.shown = self.text[self.shown:len(self.text) - held], len(self.text) - held
        return new

# ---- the command -------------------------------------------------------------------------------------------------------
def files_of(paths):
    """The text files that paths, files or folders, come to, in the order of their names."""
    found = []
    for path in paths:
        if os.path.isdir(path):
            found += sorted(os.path.join(parent, f) for parent, _, files in os.walk(path) for f in files
                            if f.endswith(('.txt', '.md', '.py')))
        elif os.path.isfile(path):
            found.append(path)
        else:
            stop(f"there is no file or folder {path!r}")
    if not found:
        stop(f"no .txt, .md or .py file in {', '.join(paths)}")
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: stop(f"{message}; --help says more")
    parser.add_argument('paths', nargs='+', help="files or folders of text")
    parser.add_argument('--name', required=True, help="the dataset's name, a folder under data/")
    parser.add_argument('--tokenizer', default='char', choices=['char', 'gpt2'])
    args = parser.parse_args()
    if args.name in ('', '.', '..') or args.name != os.path.basename(args.name):
        parser.error(f"--name {args.name!r} is no name of a folder under data/")
    texts = [text for text in map(read_text, files_of(args.paths)) if text.strip()]
    enough(''.join(texts), ', '.join(args.paths))
    if args.tokenizer == 'char' and len(set().union(*texts)) > 65535:
        stop("there are more characters than uint16 has ids; give --tokenizer=gpt2")
    if len(texts) < 10:
        train, val = zip(*map(parted, texts), strict=True)
    else:
        train, val = [t for i, t in enumerate(texts) if i % 10], texts[::10]
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), args.name)
    bpe = gpt2_bpe() if args.tokenizer == 'gpt2' else None
    os.makedirs(folder, exist_ok=True)
    if bpe:
        write_documents(os.path.join(folder, 'train.bin'), train, bpe)
        write_documents(os.path.join(folder, 'val.bin'), val, bpe)
        if os.path.exists(os.path.join(folder, 'meta.pkl')): # of an earlier run by characters
            os.remove(os.path.join(folder, 'meta.pkl'))
    else:
        write_chars(folder, '\n'.join(train), '\n'.join(val))
    print(f"now: python train.py config/train_shakespeare_char.py --dataset={args.name} --out_dir=out-{args.name}")

if __name__ == '__main__':
    try:
        main()
    except OSError as e:
        stop(e)
