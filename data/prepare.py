"""
Turns text into data/NAME/{train,val}.bin and meta.pkl, and reads them again. The format of a dataset is defined here only; data/*/prepare.py
and the scripts import it.

your own text, in files, folders or quoted patterns; each line of .jsonl, row of .parquet and other file is a document
    python data/prepare.py notes.txt --name=notes                                 by characters
    python data/prepare.py books/ "more/**/*.md" --name=books --tokenizer=gpt2    in GPT-2 BPE, or another of tiktoken's encodings
    python data/prepare.py crawl/ --name=crawl --tokenizer=bpe:8192 --field=body  in a BPE of 8192 ids, learned from this text
Every tenth document goes to val.bin, or the last tenth of each document if there are fewer than ten; <|endoftext|> follows each
document, except by characters. The same command continues a run that was stopped.
"""
import argparse
import codecs
import contextlib
import glob
import hashlib
import http.client
import importlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import urllib.request
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from tqdm import tqdm

SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
END = '<|endoftext|>' # the text; each tokenizer has its own id for it
PIECE = 2 ** 18 # characters that are read, cut and encoded at once; up to three where no word ends, and tiktoken fails at a million spaces

for stream in ('stdout', 'stderr'): # which a process without a console does not have
    setattr(sys, stream, getattr(sys, stream) or open(os.devnull, 'w', encoding='utf-8'))
    out = getattr(getattr(sys, stream), 'reconfigure', dict) # dict, which does nothing, stands in where a stream was replaced
    out(encoding='utf-8', errors='backslashreplace', line_buffering=True) # not Windows' codepage

def stop(message):
    """End the running script with a sentence and status 1."""
    sys.exit(f"{os.path.basename(sys.argv[0])}: {' '.join(str(message).split())}")

@contextlib.contextmanager
def in_sentences():
    """Within it, or in a function that it decorates, Ctrl-C and disk errors end the script with a sentence."""
    try:
        yield
    except OSError as e:
        stop(e)
    except KeyboardInterrupt:
        stop("stopped; the same command goes on from here")

def package(name, what):
    """Import the module name; if it is not installed, end with a sentence that says what needs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        stop(f"{what} needs the package {name.split('.')[0]}: pip install {name.split('.')[0]}")

# ---- text --------------------------------------------------------------------------------------------------------------
def parts_of(path):
    """The text of a UTF-8 file in parts, without a byte order mark, with a line feed for every kind of line end."""
    decoder, read = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder('utf-8-sig')(), translate=True), 0
    try:
        with open(path, 'rb') as f:
            while data := f.read(PIECE):
                read += len(data)
                yield decoder.decode(data)
        yield decoder.decode(b'', final=True)
    except UnicodeDecodeError as e:
        stop(f"{path} is not UTF-8 text (byte {read - len(e.object) + e.start}); convert it, for example with iconv")
    except OSError as e:
        stop(f"cannot read {path} ({e.strerror})")

def read_text(path):
    return ''.join(parts_of(path))

def enough(characters, path):
    """End the script if path has too few characters; their number is given."""
    if characters < 100:
        stop(f"{path} has {characters} characters, too few to learn from")

def write_whole(path, data):
    """Write bytes under another name first, so that path never holds a part of them."""
    with open(path + '.tmp', 'wb') as f:
        f.write(data)
    os.replace(path + '.tmp', path)

def need_space(what, needed, folder):
    """End the script if the disk of folder, which need not exist yet, has fewer bytes free than the needed ones for what."""
    there = os.path.abspath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    size, _, free = shutil.disk_usage(there)
    if size and free < needed: # some network file systems say 0 of 0
        stop(f"{what} takes {needed / 1e9:.1f} GB, and {folder!r} has {free / 1e9:.1f} GB free; free some or choose another folder")

@in_sentences()
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
    text = read_text(path)
    enough(len(text), path)
    return text

def parted(text):
    """The first nine tenths, for train.bin, and the rest, for val.bin."""
    return text[:int(len(text) * 0.9)], text[int(len(text) * 0.9):]

def clean(text):
    """text with U+FFFD in place of lone surrogates, which JSON and a command line may hold, but UTF-8 may not."""
    return text if text.isascii() else text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')

def json_lines(path, field):
    """The text in field of each line of a JSONL file."""
    with open(path, 'rb') as f:
        for n, line in enumerate(f, 1):
            try:
                row = json.loads(line) if line.strip() else {field: None}
            except (ValueError, RecursionError):
                stop(f"{path} line {n} is not JSON in UTF-8")
            text = row.get(field, 0) if isinstance(row, dict) else 0
            if not isinstance(text, str | None):
                there = ', '.join(row) if isinstance(row, dict) else type(row).__name__
                stop(f"{path} line {n} has no text in a field {field!r}, only {there}; --field=NAME says where it is")
            yield clean(text or '')

def parquet_rows(path, field):
    """The text in field of each row of a Parquet file."""
    parquet = package('pyarrow.parquet', f"reading {path}")
    try:
        with parquet.ParquetFile(path) as f:
            kinds = {column.name: str(column.type) for column in f.schema_arrow}
            if not re.fullmatch(r'(dictionary<values=)?(large_)?string(_view)?(, .*)?', kinds.get(field, '')):
                there = ', '.join(f'{k} ({v})' for k, v in kinds.items())
                stop(f"{path} has no text in a field {field!r}, only {there}; --field=NAME says where it is")
            for rows in f.iter_batches(100, columns=[field]):
                yield from (text or '' for text in rows.column(0).to_pylist())
    except (OSError, ValueError) as e: # pyarrow's errors are among these
        stop(f"cannot read {path} ({e})")

def pieces_of(parts):
    """
    Cut the document that parts make up into pairs: about PIECE characters, and whether they are its last; none if it is blank. Cuts
    fall between a letter or digit and a space or line end, where every BPE cuts too, so the tokens are those of the whole document.
    """
    held, begun = '', False
    for part in parts:
        held += part
        if len(held) >= PIECE:
            word = re.match(r'.*[^\W_](?=[ \n])', held, re.DOTALL)
            cut = word.end() if word else len(held)
            yield held[:cut], False
            held, begun = held[cut:], True
    if begun or held.strip():
        yield held, True

def documents_of(files, field):
    """The pieces, as from pieces_of, of all documents in files."""
    for path in files:
        rows = {'.jsonl': json_lines, '.parquet': parquet_rows}.get(os.path.splitext(path)[1].lower())
        for text in rows(path, field) if rows else ():
            yield from pieces_of(text[i:i + PIECE] for i in range(0, len(text), PIECE))
        if not rows: # the file is one document
            yield from pieces_of(parts_of(path))

def survey(documents, by_characters):
    """The number of characters in all documents, the lengths of the first ten and, if by_characters, the alphabet in order."""
    total, lengths, at, seen = 0, [], 0, np.zeros(0x110000, bool) # at: characters of this document; seen: by code
    with tqdm(desc='looking through the text', unit='B', unit_scale=True, disable=None) as bar:
        for text, last in documents:
            at += len(text)
            if by_characters:
                seen[codes(text)] = True
            if last:
                total, lengths, at = total + at, (lengths + [at])[:10], 0
            bar.update(len(text))
    seen[ord('\n')] |= len(lengths) > 1 # a line feed will separate documents
    return total, lengths, ''.join(map(chr, np.flatnonzero(seen)))

def split_of(documents, lengths, between=''):
    """The pieces of documents as (text, whether a document ends, 'train' or 'val'), with a text between the documents of a split."""
    n = at = 0 # the document's number, and the characters of it that are done
    few, ended = len(lengths) < 10, dict(train=False, val=False) # whether a document of the split just ended
    for text, last in documents:
        cut = max(0, int(lengths[n] * 0.9) - at) if few else 0 # up to here the text is train's, if each document is divided
        for split, part in [('train', text[:cut]), ('val', text[cut:])] if few else [('train' if n % 10 else 'val', text)]:
            yield between * ended[split] + part, last, split
            ended[split] = last
        n, at = (n + 1, 0) if last else (n, at + len(text))

# ---- tokens ------------------------------------------------------------------------------------------------------------
def codes(text):
    """The numbers that Unicode gives to the characters of text, an array."""
    return np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), '<u4')

def codec_of(vocab_size, **more):
    """The content of a meta.pkl."""
    return {'vocab_size': vocab_size, **more, **({'dtype': 'uint32'} if vocab_size > 2 ** 16 else {})}

def char_codec(alphabet):
    """The codec of single characters: each in alphabet gets the next id."""
    return codec_of(len(alphabet), stoi={c: i for i, c in enumerate(alphabet)}, itos=dict(enumerate(alphabet)))

def byte_bpe(*files):
    """A byte-level BPE of the package tokenizers: from vocab.json and merges.txt, or untrained."""
    tk = package('tokenizers', "a BPE of your own")
    bpe = tk.Tokenizer(tk.models.BPE.from_file(*files) if files else tk.models.BPE())
    bpe.pre_tokenizer, bpe.decoder = tk.pre_tokenizers.ByteLevel(add_prefix_space=False), tk.decoders.ByteLevel()
    return bpe

def bpe_codec(texts, size):
    """The codec of a byte-level BPE that is learned from texts, of size ids, or fewer where they offer no more."""
    tk, bpe = package('tokenizers', "learning a BPE"), byte_bpe()
    texts = (re.sub(r'(\S{1000})(?=\S)|\s{1000,}', r'\1\n', text) for text in texts) # the time for longer words or space grows with their square
    bpe.train_from_iterator(texts, tk.trainers.BpeTrainer(vocab_size=size, special_tokens=[END], show_progress=sys.stderr.isatty(),
                                                          initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet()))
    return codec_of(bpe.get_vocab_size(), tokenizer='bpe', json=bpe.to_str())

def tiktoken_bpe(name):
    """tiktoken's encoding of this name."""
    tiktoken = package('tiktoken', f"the tokenizer {name}")
    if name not in tiktoken.list_encoding_names():
        stop(f"there is no tokenizer {name!r}; choose char, bpe:8192 or another size, or tiktoken's {', '.join(tiktoken.list_encoding_names())}")
    try:
        return tiktoken.get_encoding(name)
    except (OSError, ValueError) as e: # no network, or an answer that is not the tables
        stop(f"tiktoken could not fetch the tables of {name}, which needs the network once ({str(e)[:200]})")

class PlainUnpickler(pickle._Unpickler): # written in Python; the one in C can be made to ask for gigabytes
    """Reads numbers, strings and containers, and refuses anything that would import a name."""
    dispatch = {op: load for op, load in pickle._Unpickler.dispatch.items() if op != pickle.BYTEARRAY8[0]} # which takes memory by a number in the file
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")

def check_codec(meta):
    """The kind of a meta.pkl's content: 'char', 'bpe', 'tiktoken:NAME', or 'none' for ids without text. Raises TypeError or KeyError if it is inconsistent."""
    if meta is None:
        return 'tiktoken:gpt2'
    V, kind = meta['vocab_size'], meta.get('tokenizer') or 'none'
    if type(kind) is str and not (kind == 'bpe' or kind.startswith('tiktoken:') or 'json' in meta): # also if it is somebody else's word
        kind = 'char' if {'stoi', 'itos'} & {*meta} else 'none'
    if type(V) is not int or not 1 <= V <= 2 ** 32 or meta.get('dtype', 'uint16') not in ('uint16', 'uint32')[V > 2 ** 16:]:
        raise TypeError("its vocab_size or dtype is wrong: ids above 65,535 take uint32")
    if kind == 'char':
        stoi, itos = meta['stoi'], meta['itos']
        n = len(itos) # fewer than V if the vocabulary was padded to a size that hardware likes
        if not (0 < n <= V and all(type(itos[i]) is str for i in range(n)) and all(type(s) is str and type(i) is int and 0 <= i < n for s, i in stoi.items())):
            raise TypeError("its tables stoi and itos do not pair text with ids")
    elif kind == 'bpe' and type(meta['json']) is not str:
        raise TypeError("its json, the definition of a BPE, is no text")
    elif kind not in ('bpe', 'none') and not (type(kind) is str and kind.startswith('tiktoken:')):
        raise TypeError(f"its tokenizer {kind if type(kind) is str else type(kind).__name__!r} is unknown")
    return kind

def load_meta(path):
    """The dict in a meta.pkl; None if there is no such file, which means GPT-2 BPE. A bad one ends the script."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, 'rb') as f:
            meta = PlainUnpickler(io.BytesIO(f.read())).load()
        if meta is None:
            raise TypeError("it is empty")
        ours = ('vocab_size', 'stoi', 'itos', 'tokenizer', 'json', 'dtype') # of others no lists, which may hold themselves many times over
        meta = {k: v for k, v in meta.items() if k in ours or type(v) in (int, float, str)}
        check_codec(meta)
    except Exception as e:
        stop(f"{path} is not a meta.pkl of plain data ({type(e).__name__}: {e}): not loaded")
    return meta

def open_codec(meta, special=False):
    """
    (encode: pairs of a text and whether <|endoftext|> follows it -> all their ids; decode: ids -> text; number of ids; id of
    <|endoftext|> or None) for a meta.pkl's content, None meaning GPT-2 BPE. Unless special is True, <|endoftext|> and a BPE's other
    special tokens within a text are encoded as ordinary text.
    """
    try:
        kind = check_codec(meta)
        if kind == 'none':
            stop("meta.pkl has only vocab_size: such ids can be trained on, but without stoi and itos there is no text for them")
        if kind == 'bpe':
            definition = json.loads(meta['json'])
            model, decoder, normalizer = (definition.get(part) or {} for part in ('model', 'decoder', 'normalizer'))
            of_bytes = model.get('type') == 'BPE' and decoder.get('type') == 'ByteLevel' and not model.get('continuing_subword_prefix')
            if not of_bytes or normalizer.get('type') not in (None, 'NFC', 'NFD', 'NFKC', 'NFKD'):
                raise ValueError("it is no BPE of bytes, or it rewrites text in ways that are not safe to run")
            bpe = package('tokenizers', "this BPE").Tokenizer.from_str(meta['json'])
            bpe.no_truncation(), bpe.no_padding() # which an earlier use may have left on
            end, bpe.encode_special_tokens = bpe.token_to_id(END), not special
            if max(bpe.get_vocab().values()) >= meta['vocab_size']:
                raise ValueError("it has more ids than vocab_size says")
            def encode(pieces):
                rows = bpe.encode_batch_fast([text for text, _ in pieces], add_special_tokens=False)
                return [i for row, (_, ends) in zip(rows, pieces, strict=True) for i in row.ids + [end] * ends]
            return encode, lambda ids: bpe.decode(ids, skip_special_tokens=False), meta['vocab_size'], end
        if kind != 'char':
            bpe = tiktoken_bpe(kind.removeprefix('tiktoken:'))
            if meta and meta['vocab_size'] != bpe.n_vocab:
                raise ValueError(f"{kind} has {bpe.n_vocab} ids")
            bpe.encode_ordinary("it's 12 , \n\n  and  ") # its regexes are slow in the first thread that uses them, so let it be this one
            def encode(pieces):
                if any(END in text for text, _ in pieces):
                    return [i for text, ends in pieces for i in bpe.encode_ordinary(text) + [bpe.eot_token] * ends]
                return bpe.encode_to_numpy(''.join(text + END * ends for text, ends in pieces), allowed_special={END}, disallowed_special=())
            def decode(ids):
                known = []
                for i in ids:
                    with contextlib.suppress(KeyError): # an id that cl100k_base leaves unused, but a model may draw early in training
                        known.append(bpe.decode_single_token_bytes(i))
                return b''.join(known).decode('utf-8', 'replace')
            return encode, decode, bpe.n_vocab, bpe.eot_token
    except Exception as e:
        stop(f"the model's alphabet is damaged ({type(e).__name__}: {e})")
    stoi, itos, table = meta['stoi'], meta['itos'], np.full(0x110000, -1)
    for c, i in stoi.items():
        if len(c) == 1:
            table[ord(c)] = i
    def encode(pieces):
        text = ''.join(text for text, _ in pieces)
        ids = table[codes(text)]
        if -1 in ids:
            stop(f"the model never saw {' '.join(map(repr, sorted(set(text) - set(stoi))))}; it knows {''.join(sorted(stoi))!r}")
        return ids
    return encode, lambda ids: ''.join(itos[i] for i in ids if i < len(itos)), len(itos), None

def get_codec(meta):
    """(encode: text, with <|endoftext|> as its one id -> ids; decode: ids -> text; n_vocab; id of <|endoftext|> or None); see open_codec."""
    encode, decode, n_vocab, end = open_codec(meta, special=True)
    def encode_prompt(text):
        *ended, rest = clean(text).split(END) if end is not None else [clean(text)]
        return np.asarray(encode([*((part, True) for part in ended), (rest, False)]), int).tolist()
    return encode_prompt, decode, n_vocab, end

# ---- writing -----------------------------------------------------------------------------------------------------------
def on_all_cores(function, items):
    """Yield function(item) for each item, in order, a few at a time in threads; function has to release Python's lock."""
    waiting, cores = deque(), min(os.cpu_count() or 1, 16) # no more, as what waits takes memory
    with ThreadPoolExecutor(cores) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

def grouped(pieces):
    """Group pieces into lists of PIECE characters or up to a piece more; the last may be shorter, even empty."""
    group, size = [], 0
    for piece in pieces:
        group.append(piece)
        size += len(piece[0])
        if size >= PIECE:
            yield group
            group, size = [], 0
    yield group

@contextlib.contextmanager
def only_writer(folder):
    """Make folder, and lock it until the block or the process ends; end the script if another process has locked it."""
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError): # Windows has no fcntl, and not every file system has locks
            import fcntl
            held.callback(os.close, fd := os.open(folder, os.O_RDONLY))
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stop(f"another process is writing into {folder}; when it has ended, run the same command once more")
        yield

@in_sentences()
def write_bins(folder, pieces_from, meta, total, source=''):
    """
    Write train.bin, val.bin and meta.pkl (none if meta is None, GPT-2 BPE) into folder. pieces_from(n) yields the pieces from the n-th
    on, (text, whether a document ends, 'train' or 'val'), about total characters in all. Memory stays flat. A run that was stopped
    continues if source, which identifies the input, is the same. Existing files stay until the new ones are whole.
    """
    with only_writer(folder):
        write_bins_alone(folder, pieces_from, meta, total, source)

def write_bins_alone(folder, pieces_from, meta, total, source):
    """write_bins, where no other process writes."""
    encode, _, vocab_size, end = open_codec(meta)
    dtype = np.dtype((meta or {}).get('dtype', 'uint16')).newbyteorder('<')
    paths = {split: os.path.join(folder, split + '.bin') for split in ('train', 'val')}
    mark = os.path.join(folder, 'prepare.part.json') # what is valid: the input's hash, pieces, characters, bytes per split
    of, done, behind, sizes = hashlib.sha256(repr((PIECE, source, total, meta)).encode()).hexdigest(), 0, 0, dict(train=0, val=0)
    try:
        with open(mark, encoding='utf-8') as f:
            saved = json.load(f)
        if saved[0] == of and all(os.path.getsize(path + '.part') >= saved[3][split] for split, path in paths.items()):
            _, done, behind, sizes = saved # else it belongs to other input, or a power cut lost the end
    except Exception: # it is not there, or not what is written here
        pass
    need_space('the dataset', (total - behind) * dtype.itemsize / (4 if end is not None else 1), folder) # a BPE's token is about four characters

    def ids_of(group):
        return group, {split: np.asarray(encode([p[:2] for p in group if p[2] == split])).astype(dtype).tobytes() for split in paths}

    with (open(paths['train'] + '.part', 'ab') as train, open(paths['val'] + '.part', 'ab') as val,
          tqdm(desc=folder, total=total, initial=behind, unit='B', unit_scale=True, disable=None) as bar):
        files = dict(train=train, val=val)
        for split, f in files.items():
            f.seek(f.truncate(sizes[split]))
        for group, ids in on_all_cores(ids_of, grouped(pieces_from(done))):
            characters = sum(len(text) for text, _, _ in group)
            for split, f in files.items():
                sizes[split] += f.write(ids[split])
                f.flush()
                if f.tell() != sizes[split]: # the file's end, since it is open for appending
                    stop(f"another process is writing into {folder}; when it has ended, run the same command once more")
            done, behind = done + len(group), behind + characters
            write_whole(mark, json.dumps([of, done, behind, sizes]).encode())
            bar.update(characters)
    place = os.path.join(folder, 'meta.pkl')
    if meta: # before the bins get their names, so that a disk without room for it leaves what is done to be continued
        write_whole(place + '.part', pickle.dumps(meta))
    for path in [*paths.values(), *[place] * bool(meta)]:
        os.replace(path + '.part', path)
    if not meta and os.path.exists(place): # left by an earlier run with another tokenizer
        os.remove(place)
    os.remove(mark)
    for split, path in paths.items():
        print(f"{path}: {sizes[split] // dtype.itemsize:,} tokens")
    if meta:
        print(f"vocabulary of {vocab_size:,}" + (f": {''.join(meta['stoi'])[:200]!a}" if 'stoi' in meta else ''))

def takes_no_arguments():
    """End the script if it was given any."""
    if len(sys.argv) > 1:
        stop(f"takes no arguments, got {' '.join(sys.argv[1:])}; for text of your own: python data/prepare.py --help")

def write_parts(folder, train, val, by_characters=True):
    """write_bins for two texts, train's and val's, by characters or in GPT-2 BPE without <|endoftext|>."""
    meta = char_codec(sorted(set(train + val))) if by_characters else None
    write_bins(folder, lambda n: [(train, False, 'train'), (val, False, 'val')][n:], meta, len(train + val))

# ---- reading -----------------------------------------------------------------------------------------------------------
def find_data(dataset):
    """The folder of a dataset: data/dataset in the working folder, else beside this file, else dataset as a path with a / (first if it starts with .); or None."""
    folders = [os.path.join('data', dataset), os.path.join(os.path.dirname(os.path.abspath(__file__)), dataset)]
    if os.path.dirname(dataset):
        folders.insert(0 if dataset.startswith('.') else 2, dataset)
    return next(filter(os.path.isdir, folders), None)

def need_data(dataset):
    """The folder of a dataset, as find_data has it; ends the script with what there is to choose from if there is none."""
    if not (folder := find_data(dataset)):
        ours = glob.glob('*/prepare.py', root_dir=os.path.dirname(os.path.abspath(__file__)))
        stop(f"there is no dataset {dataset!r}, neither here nor beside train.py; choose {', '.join(sorted(map(os.path.dirname, ours)))}, "
             "or a folder such as ./mine")
    return folder

class Tokens:
    """
    A split of the dataset in folder, read in windows of T + 1 ids: T and the next one. Ends the script with a sentence if the bin is
    missing, cut short or shorter than a window, if it holds an id from vocab_size up (on a GPU that would be a nameless assertion), or
    if the dataset's vocabulary is of another size than the model's.
    """
    def __init__(self, folder, split, meta, vocab_size, T):
        self.path, self.dtype = os.path.join(folder, split + '.bin'), np.dtype((meta or {}).get('dtype', 'uint16'))
        self.vocab_size, self.T = vocab_size, T
        if meta and meta['vocab_size'] != vocab_size:
            stop(f"{folder} has other tokens than the model: a vocabulary of {meta['vocab_size']}, not {vocab_size}; choose the dataset that "
                 "the weights were trained on")
        if not os.path.isfile(self.path):
            script = os.path.join(folder, 'prepare.py')
            stop(f"{self.path} is missing: run python {script if os.path.exists(script) else 'data/prepare.py TEXT --name=NAME'}")
        begin = slice(min(len(self), 10_000_000)) # len looks at the file's size first
        self.checked(self.ids()[begin]) # the rest is checked as it is read

    def __len__(self): # checked each time, as the file may be written anew during a run
        tokens = (size := os.path.getsize(self.path)) // self.dtype.itemsize
        if size == 0 or size % self.dtype.itemsize:
            stop(f"{self.path} has {size} bytes, not a whole number of {self.dtype} tokens: it is cut short or of another kind; prepare it again")
        if tokens <= self.T:
            stop(f"{self.path} has {tokens} tokens, fewer than block_size {self.T} plus the one to predict; give a smaller --block_size")
        return tokens

    def ids(self):
        """All ids, memory-mapped anew at each call, so that a long run gives pages back."""
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
    """Inputs and targets, each (B, T), of windows (B, T + 1), copied to the device (on CUDA without waiting)."""
    import torch # not needed to prepare data
    rows = torch.from_numpy(rows)
    rows = (rows.pin_memory() if 'cuda' in device else rows).to(device, non_blocking='cuda' in device) # MPS might read memory that is freed by then
    return rows[:, :-1], rows[:, 1:]

def read_prompts(start):
    """The prompts that start stands for: the text itself, the content of FILE:name, or each line of LINES:name that is not empty."""
    kind, colon, name = start.partition(':')
    if not colon or kind not in ('FILE', 'LINES'):
        return [start]
    return [read_text(name)] if kind == 'FILE' else [line for line in read_text(name).split('\n') if line]

class Text:
    """The text of a sample as its ids arrive, in whole characters, until there are n new ids or an id or text that ends it."""
    def __init__(self, prompt, decode, n, end_of_text=None, stop=''):
        self.decode, self.n, self.end_of_text, self.stop = decode, n, end_of_text, stop
        self.text, self.ids, self.made, self.shown, self.over = decode(prompt), [], 0, 0, False # ids: those not yet in text
        self.begin = len(self.text) # where new text begins

    def add(self, ids):
        """Append ids, up to what ends the text."""
        if self.over:
            return
        self.made += len(ids)
        self.over = self.made >= self.n or self.end_of_text in ids
        self.ids += ids[:ids.index(self.end_of_text)] if self.end_of_text in ids else ids
        piece = self.decode(self.ids)
        if self.over or not piece.endswith('\ufffd'): # an incomplete character decodes to this
            self.text, self.ids = self.text + piece, []
        if self.stop and self.stop in self.text[self.begin:]:
            self.text, self.over = self.text[:self.text.index(self.stop, self.begin)], True

    def fresh(self):
        """The text not returned before, except an end that may turn out to be the beginning of stop."""
        held = 0 if self.over else max(k for k in range(len(self.stop) or 1) if self.text.endswith(self.stop[:k]))
        new, self.shown = self.text[self.shown:len(self.text) - held], len(self.text) - held
        return new

# ---- the command -------------------------------------------------------------------------------------------------------
def files_of(paths):
    """The files that paths (files, folders or patterns) name, each path's in order of name."""
    found, kinds = [], ('.txt', '.md', '.py', '.jsonl', '.parquet')
    for path in paths:
        places = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not places:
            stop(f"there is no file, folder or match of {path!r}")
        for place in places:
            inside = [os.path.join(parent, f) for parent, _, files in os.walk(place, onerror=stop) for f in files] if os.path.isdir(place) else [place]
            read = sorted(f for f in inside if f.lower().endswith(kinds)) if os.path.isdir(place) else inside
            if len(read) < len(inside):
                print(f"{place}: {len(read)} files are read; {len(inside) - len(read)} are not, as folders are searched for {', '.join(kinds)} only")
            found += read
    if once := [path for path in found if os.path.exists(path) and not os.path.isfile(path)]:
        stop(f"{once[0]} can be read only once, but preparing reads text twice; write it to a file first")
    if not found:
        stop(f"no {', '.join(kinds)} in {', '.join(paths)}")
    return list({os.path.realpath(path): path for path in found}.values()) # each once, however it is spelled

@in_sentences()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: stop(f"{message}; --help says more")
    parser.add_argument('paths', nargs='+', help="files, folders or quoted patterns of text")
    parser.add_argument('--name', required=True, help="the dataset's name, a folder under data/")
    parser.add_argument('--tokenizer', default='char', help="char; gpt2 or another of tiktoken's encodings; or bpe:8192 (any size), learned from this text")
    parser.add_argument('--field', default='text', help="where the text is in .jsonl and .parquet")
    args = parser.parse_args()
    if args.name in ('', '.', '..') or args.name != os.path.basename(args.name):
        parser.error(f"--name {args.name!r} cannot be a folder under data/")
    kind, _, size = args.tokenizer.partition(':')
    if kind == 'bpe':
        if not size.isdecimal() or not 257 <= int(size) <= 2 ** 31:
            stop(f"--tokenizer={args.tokenizer}: a BPE starts from 256 bytes and {END}, so give bpe:257 or more, as in bpe:8192")
        package('tokenizers', "a BPE of your own")
    elif args.tokenizer != 'char':
        bpe = tiktoken_bpe(args.tokenizer)

    files = files_of(args.paths)
    def states():
        return [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in map(os.path.abspath, files)]
    before = states()
    def unchanged():
        if changed := [new[0] for new, old in zip(states(), before, strict=True) if new != old]:
            stop(f"{changed[0]} changed while it was read; run the same command once more when it no longer does")
    total, lengths, alphabet = survey(documents_of(files, args.field), kind == 'char')
    enough(total, ', '.join(args.paths))
    def pieces_from(n):
        yield from islice(split_of(documents_of(files, args.field), lengths, '\n' if kind == 'char' else ''), n, None)
        unchanged() # so that no bin of two texts takes the name of a whole one
    if kind == 'char':
        meta = char_codec(alphabet)
    elif kind == 'bpe':
        texts = (text for text, _, split in pieces_from(0) if split == 'train')
        meta = bpe_codec(islice(texts, 0, None, 1 + total // 2 ** 28), int(size)) # a sample of at most about 2 ** 28 characters, whose words fit into memory
    else:
        meta = None if args.tokenizer == 'gpt2' else codec_of(bpe.n_vocab, tokenizer=f'tiktoken:{args.tokenizer}')
    try:
        write_bins(os.path.join(os.path.dirname(os.path.abspath(__file__)), args.name), pieces_from, meta, total, [*before, args.field])
    except BaseException:
        unchanged() # else that is why it failed
        raise
    for when, more in (('now', ''), ('or, without a GPU', ' config/cpu.py')):
        print(f"{when}: python train.py config/train_shakespeare_char.py{more} --dataset={args.name} --out_dir=out-{args.name}")

if __name__ == '__main__':
    main()
