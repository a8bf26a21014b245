"""data/prepare.py and the scripts that use it, run from a copy of data/ so that nothing is written into the repository."""
import hashlib
import http.server
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run, run_process, train

from data.prepare import get_codec, load_meta

EOT = 50256 # <|endoftext|>


def load(path):
    spec = importlib.util.spec_from_file_location('data_prepare', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

prepare = load(ROOT / 'data' / 'prepare.py')


@pytest.fixture
def data(tmp_path):
    """A copy of data/ without what was made there."""
    return Path(shutil.copytree(ROOT / 'data', tmp_path / 'data', ignore=shutil.ignore_patterns('*.bin', '*.pkl', 'input.txt', '*.part*', '__pycache__')))


@pytest.fixture
def shakespeare():
    path = os.environ.get('NANOGPT_SHAKESPEARE')
    if not path:
        pytest.skip('NANOGPT_SHAKESPEARE does not say where the text of tiny Shakespeare is')
    return path


@pytest.fixture
def bpe():
    if not os.environ.get('TIKTOKEN_CACHE_DIR'):
        pytest.skip('TIKTOKEN_CACHE_DIR does not say where the tables of GPT-2 BPE are')
    return pytest.importorskip('tiktoken').get_encoding('gpt2')


def ids(path, dtype='<u2'):
    return np.fromfile(path, dtype=dtype)


def text_of(folder, split):
    meta = load_meta(str(folder / 'meta.pkl'))
    return get_codec(meta)[1](ids(folder / f'{split}.bin', (meta or {}).get('dtype', '<u2')).tolist())


def done(result):
    assert (result.code, result.err) == (0, ''), result.err
    return result


def refused(*words):
    """A context in which prepare.py has to stop with one line that has these words in it."""
    return pytest.raises(SystemExit, match=r'\A\S+: (?!.*\n)' + ''.join(f'(?=.*{word})' for word in words))


# ---- the datasets --------------------------------------------------------------------------------------------------------
def test_shakespeare_char(data, shakespeare):
    folder = data / 'shakespeare_char'
    shutil.copy(shakespeare, folder / 'input.txt')
    done(run(folder / 'prepare.py'))
    assert (len(ids(folder / 'train.bin')), len(ids(folder / 'val.bin'))) == (1003854, 111540)
    meta = pickle.loads((folder / 'meta.pkl').read_bytes())
    assert set(meta) == {'vocab_size', 'stoi', 'itos'} and meta['vocab_size'] == len(meta['stoi']) == len(meta['itos']) == 65
    assert all(meta['itos'][i] == c for c, i in meta['stoi'].items())
    assert text_of(folder, 'train') + text_of(folder, 'val') == Path(shakespeare).read_text(encoding='utf-8')


def test_shakespeare(data, shakespeare, bpe):
    folder = data / 'shakespeare'
    shutil.copy(shakespeare, folder / 'input.txt')
    done(run(folder / 'prepare.py'))
    train, val = ids(folder / 'train.bin'), ids(folder / 'val.bin')
    assert (len(train), len(val)) == (301966, 36059)
    assert not (folder / 'meta.pkl').exists()
    assert bpe.decode([*train, *val]) == Path(shakespeare).read_text(encoding='utf-8')


def test_python_char(data):
    folder, made = data / 'python_char', []
    for _ in range(2):
        texts = done(run(folder / 'prepare.py')).space['texts']
        made.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()})
    assert made[0] == made[1] and set(made[0]) == {'prepare.py', 'train.bin', 'val.bin', 'meta.pkl'}
    letters = np.array(list(map(ord, load_meta(str(folder / 'meta.pkl'))['itos'].values())), '<u4') # quicker than decoding ten million ids one by one
    train, val = (letters[ids(folder / f'{split}.bin')].tobytes().decode('utf-32-le') for split in ('train', 'val'))
    assert set(train + val) <= {'\n', *map(chr, range(32, 127))} and load_meta(str(folder / 'meta.pkl'))['vocab_size'] == len(set(train + val))
    assert len(train) + len(val) == sum(map(len, texts)) and 0.05 < len(val) / len(train) < 0.2
    longest = sorted(set(texts), key=len)[-60:]
    assert all((t in train) != (t in val) for t in longest) and any(t in val for t in longest) # a module is on one side only


def test_python_char_of_another_library(data, tmp_path, monkeypatch):
    names = [f'm{i:03}.py' for i in range(110)]
    for name in *names, 'site-packages/x.py', 'a/test/x.py', 'config-3/x.py', '_sysconfigdata_x.py', 'x.txt':
        (tmp_path / 'lib' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'lib' / name).write_text(f'{name}\f\n', encoding='utf-8')
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path / 'lib'))
    walk = os.walk
    monkeypatch.setattr(os, 'walk', lambda top: ((parent, folders, sorted(files, reverse=True)) for parent, folders, files in walk(top))) # disks have orders of their own
    script = data / 'python_char' / 'prepare.py'
    assert done(run(script)).space['texts'] == [name + '\n' for name in names]
    for name in names[:11]:
        (tmp_path / 'lib' / name).unlink()
    run(script).refused('only 99 readable modules')


@pytest.mark.parametrize('name', ['python_char', 'shakespeare', 'shakespeare_char'])
def test_arguments_of_scripts_that_take_none(data, name):
    run(data / name / 'prepare.py', '--help').refused('takes no arguments, got --help', 'data/prepare.py')


def test_openwebtext_from_a_folder(data, bpe, tmp_path):
    pytest.importorskip('datasets')
    n, folder = 4000, data / 'openwebtext'
    texts = [f'Document {i} is about {i * i}, ünï.\n' for i in range(n)]
    source = tmp_path / 'source'
    source.mkdir()
    for name, part in (('a', texts[:1500]), ('b', texts[1500:])):
        (source / f'{name}.jsonl').write_text(''.join(json.dumps({'text': t}) + '\n' for t in part), encoding='utf-8')
    env = dict(HF_HUB_OFFLINE='1', HF_DATASETS_CACHE=str(tmp_path / 'cache'), HF_HOME=str(tmp_path / 'home'),
               HF_DATASETS_DISABLE_PROGRESS_BARS='1')
    result = run_process(folder / 'prepare.py', source=source, env=env) # datasets reads its settings once, when it is imported
    assert result.code == 0, result.err
    split = {name: bpe.decode(ids(folder / f'{name}.bin')).split('<|endoftext|>') for name in ('train', 'val')}
    assert all(documents.pop() == '' for documents in split.values()) # one after each document, none before
    assert [np.count_nonzero(ids(folder / f'{name}.bin') == EOT) for name in ('train', 'val')] == [n - 2, 2] == [*map(len, split.values())]
    assert sorted(split['train'] + split['val']) == sorted(texts) and split['train'] != sorted(split['train'], key=texts.index)
    assert not list(folder.glob('*.part*'))
    assert not (folder / 'meta.pkl').exists()


def test_openwebtext_refusals(data, bpe, tmp_path):
    pytest.importorskip('datasets')
    script = data / 'openwebtext' / 'prepare.py'
    run(script, source=tmp_path / 'nowhere').refused('prepare.py: ', 'nowhere')
    for n in ('many', '-5'):
        run(script, source=tmp_path / 'nowhere', max_docs=n).refused('prepare.py: ', 'max_docs')


def test_openwebtext_of_some_documents(data, bpe, tmp_path, monkeypatch):
    """A sample of all of them, whose split is nanoGPT's; a run that was stopped goes on at any piece."""
    datasets = pytest.importorskip('datasets')
    texts, asked, script = [f'{i:04}' for i in range(3000)], [], data / 'openwebtext' / 'prepare.py'
    def fetch(name, revision, **more):
        asked.append(revision)
        if revision == 'main':
            raise RuntimeError('Dataset scripts are no longer supported')
        return datasets.Dataset.from_dict(dict(text=texts))
    monkeypatch.setattr(datasets, 'load_dataset', fetch)
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: (10**12, 0, 54e9))
    run(script).refused('54 GB are free', 'HF_HOME')
    for n, made in (2500, 2500), (9999, 3000):
        monkeypatch.setattr(shutil, 'disk_usage', lambda folder, free=55e9 if n == 2500 else 54e9: (10**12, 0, free))
        pieces_from = done(run(script, max_docs=n)).space['pieces_from']
        pieces = list(pieces_from(0))
        drawn, part = (np.random.default_rng(2357).permutation(m) for m in (3000, made)) # as datasets shuffles and splits
        assert [text for text, _, split in pieces if split == 'val'] == [texts[drawn[i]] for i in part[:len(pieces) - made or 2]]
        (tmp_path / 'cache' / 'Skylion007___openwebtext').mkdir(exist_ok=True) # what is there needs no room
        assert len(set(pieces)) == made and all(list(pieces_from(k)) == pieces[k:] for k in (1, 2, 3, 1002))
    assert asked == ['main', 'refs/convert/parquet'] * 2


# ---- your own text -------------------------------------------------------------------------------------------------------
def test_one_file(data, tmp_path):
    text = 'ünï line\n' * 50
    (tmp_path / 'notes.txt').write_text(text, encoding='utf-8')
    result = done(run(data / 'prepare.py', tmp_path / 'notes.txt', name='notes', tokenizer='char'))
    folder = data / 'notes'
    assert text_of(folder, 'train') == text[:405] and text_of(folder, 'val') == text[405:]
    assert 'train.bin: 405 tokens' in result.out and 'val.bin: 45 tokens' in result.out
    assert result.out.splitlines()[-2:] == ['now: python train.py config/train_shakespeare_char.py --dataset=notes --out_dir=out-notes',
                                            'or, without a GPU: python train.py config/train_shakespeare_char.py config/cpu.py --dataset=notes --out_dir=out-notes']


def test_a_folder_of_files(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'texts'
    (source / 'more').mkdir(parents=True)
    names = [f'{i:02}.txt' for i in range(10)] + ['more/A.MD', 'more/b.py']
    for i, name in enumerate(names):
        (source / name).write_text(chr(ord('a') + i) * 100, encoding='utf-8')
    (source / 'picture.png').write_bytes(b'\xff' * 200)
    assert 'texts: 12 files are read; 1 are not' in done(run(data / 'prepare.py', 'texts', name='many', tokenizer='char')).out
    train, val = text_of(data / 'many', 'train'), text_of(data / 'many', 'val')
    assert set(val) - {'\n'} == {'a', 'k'} and set(train) & set(val) == {'\n'} # every tenth file, whole
    assert len(set(train + val)) == 13


def test_short_files_in_a_folder_do_no_harm(data, tmp_path):
    source = tmp_path / 'package'
    source.mkdir()
    (source / '__init__.py').write_text('', encoding='utf-8')
    (source / 'code.py').write_text('x = 1\n' * 100, encoding='utf-8')
    (source / 'more.py').write_text('y\n' * 50, encoding='utf-8')
    done(run(data / 'prepare.py', source, name='package', tokenizer='char'))
    assert text_of(data / 'package', 'train') == 'x = 1\n' * 90 + '\n' + 'y\n' * 45 # a tenth of each
    assert text_of(data / 'package', 'val') == 'x = 1\n' * 10 + '\n' + 'y\n' * 5


def test_own_text_in_bpe(data, bpe, tmp_path):
    folder = data / 'mine'
    folder.mkdir()
    (folder / 'meta.pkl').write_bytes(b'of an earlier run')
    text = 'All that glisters is not gold. ' * 20
    (tmp_path / 'a.txt').write_text(text, encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / 'a.txt', name='mine', tokenizer='gpt2'))
    parts = [bpe.decode(ids(folder / f'{name}.bin')) for name in ('train', 'val')]
    assert ''.join(p.removesuffix('<|endoftext|>') for p in parts) == text and all(p.count('<|endoftext|>') == 1 for p in parts)
    assert load_meta(str(folder / 'meta.pkl')) is None # GPT-2 BPE, whatever was there before


@pytest.mark.parametrize('args, words', [
    (['nowhere.txt', '--name=x'], ['nowhere.txt']),
    (['latin.txt', '--name=x'], ['latin.txt', 'UTF-8']),
    (['short.txt', '--name=x'], ['short.txt']),
    (['empty', '--name=x'], ['empty', '.txt']),
    (['good.txt'], ['--name']),
    (['good.txt', '--name=x', '--tokenizer=words'], ['tokenizer']),
    (['--name=x'], ['paths']),
    pytest.param(['good.txt', '--name=x', '--tokenizer=words'], ['char, bpe:8192', 'cl100k_base'],
                 marks=pytest.mark.skipif(find_spec('tiktoken') is None, reason="tiktoken, which knows the names, is not installed")),
    (['good.txt', '--name='], ['--name']), # it would be written into data/ itself
])
def test_own_text_is_refused(data, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'latin.txt').write_bytes('naïve '.encode('latin-1') * 50)
    (tmp_path / 'short.txt').write_text('short', encoding='utf-8')
    (tmp_path / 'good.txt').write_text('good ' * 50, encoding='utf-8')
    (tmp_path / 'empty').mkdir()
    run(data / 'prepare.py', *args).refused('prepare.py: ', *words)
    assert not list(data.rglob('*.bin'))


# ---- input.txt -----------------------------------------------------------------------------------------------------------
TEXT = 'To be, or not to be, that is the question.\n' * 5
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture(scope='module')
def url():
    """A server on this machine that knows /right, /wrong and /cut, and nothing else."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = {'/right': TEXT, '/wrong': '<html>not the text</html>' * 10, '/cut': TEXT}.get(self.path, 'no such page' * 20).encode()
            self.send_response(200 if self.path in ('/right', '/wrong', '/cut') else 404)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body[:50] if self.path == '/cut' else body)
        def log_message(self, *args):
            pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.05))
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


@pytest.mark.parametrize('page, words', [('/gone', ['404', 'by hand']), ('/wrong', ['not the file expected', 'by hand']), ('/cut', ['by hand'])])
def test_a_failed_download_leaves_nothing(tmp_path, monkeypatch, url, page, words):
    monkeypatch.setenv('no_proxy', '*')
    with refused(url + page, *words):
        prepare.fetched_text(str(tmp_path / 'input.txt'), url + page, SHA256)
    assert not list(tmp_path.iterdir())


def test_a_download_is_kept_and_a_file_placed_by_hand_is_taken(tmp_path, monkeypatch, url):
    monkeypatch.setenv('no_proxy', '*')
    path = tmp_path / 'input.txt'
    for page in ('/right', '/gone'): # the second time nothing is asked for
        assert prepare.fetched_text(str(path), url + page, SHA256) == TEXT == path.read_text(encoding='utf-8')
    path.write_text('another text ' * 20, encoding='utf-8')
    assert prepare.fetched_text(str(path), url + '/right', SHA256) == 'another text ' * 20
    assert [p.name for p in tmp_path.iterdir()] == ['input.txt']


def test_the_file_in_the_repository_is_the_known_one(shakespeare):
    assert hashlib.sha256(Path(shakespeare).read_bytes()).hexdigest() == prepare.SHAKESPEARE[1]


def test_input_that_is_not_utf8(data):
    path = data / 'shakespeare_char' / 'input.txt'
    path.write_bytes('naïve '.encode('latin-1') * 50)
    run(data / 'shakespeare_char' / 'prepare.py').refused('prepare.py: ', 'input.txt', 'UTF-8', 'byte 2')
    assert not (data / 'shakespeare_char' / 'train.bin').exists()


def test_no_network_for_the_tables_of_bpe(data, tmp_path, monkeypatch):
    tiktoken = pytest.importorskip('tiktoken')
    (tmp_path / 'a.txt').write_text(TEXT, encoding='utf-8')
    for error in ConnectionError('no route'), ValueError('another hash'): # the second if a proxy answers with a page of its own
        def unreachable(name, error=error):
            raise error
        monkeypatch.setattr(tiktoken, 'get_encoding', unreachable)
        run(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer='gpt2').refused('prepare.py: ', str(error))


# ---- kinds of input -------------------------------------------------------------------------------------------------------
DOCUMENTS = [f'Document {i}: ünï 木 🌲 {i * i}\nline' for i in range(12)]


def write_inputs(folder):
    """DOCUMENTS in each kind of file; returns what stands for all of them on the command line, for each kind."""
    for i, text in enumerate(DOCUMENTS):
        (folder / 'files' / f'{i:02}').mkdir(parents=True)
        (folder / 'files' / f'{i:02}' / 'a.txt').write_text(text, encoding='utf-8')
    rows = [{'text': 'of another field', 'body': text} for text in DOCUMENTS]
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) + '\n' * (1 + i % 3) for i, row in enumerate(rows)]
    (folder / 'a.jsonl').write_text(''.join(lines[:5]), encoding='utf-8')
    (folder / 'b.jsonl').write_text(''.join(lines[5:]) + json.dumps({'body': None}), encoding='utf-8')
    kinds = {'a folder': ['files'], 'a pattern': ['**/a.txt'], 'both': ['files', 'files/0*/a.txt'], 'JSONL': ['a.jsonl', 'b.jsonl']}
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return kinds
    table = pyarrow.Table.from_pylist([*rows, {'body': None}])
    pyarrow.parquet.write_table(table, folder / 'c.parquet', row_group_size=5)
    for kind in 'dictionary', 'large_string', 'string_view':
        to = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) if kind == 'dictionary' else getattr(pyarrow, kind)()
        pyarrow.parquet.write_table(table.set_column(1, 'body', table.column('body').cast(to)), folder / f'{kind}.PARQUET')
    return {**kinds, 'Parquet': ['c.parquet'], **{f'Parquet of {p.stem}': [p.name] for p in folder.glob('*.PARQUET')}}


def test_the_same_documents_from_files_lines_and_rows(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, paths in write_inputs(tmp_path).items():
        done(run(data / 'prepare.py', *paths, name='x', field='body'))
        assert text_of(data / 'x', 'train') == '\n'.join(t for i, t in enumerate(DOCUMENTS) if i % 10), kind
        assert text_of(data / 'x', 'val') == '\n'.join(DOCUMENTS[::10]), kind
    done(run(data / 'prepare.py', 'files', 'a.jsonl', name='x', field='body')) # all kinds at once
    assert text_of(data / 'x', 'val') == '\n'.join((DOCUMENTS + DOCUMENTS[:5])[::10])


def test_between_documents_in_bpe_is_only_the_end_of_text(data, tmp_path):
    pytest.importorskip('tokenizers')
    write_inputs(tmp_path)
    done(run(data / 'prepare.py', tmp_path / 'files', name='x', tokenizer='bpe:300'))
    assert text_of(data / 'x', 'val') == ''.join(text + prepare.END for text in DOCUMENTS[::10])


def test_what_can_be_read_only_once_is_refused(data):
    run('data/prepare.py', '/dev/stdin', name='once').refused('/dev/stdin can be read only once', 'file first')


def test_half_a_surrogate_pair_in_json(data, tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "' + 'a\\ud83d\\ude00b\\ud83dc' * 50 + '"}\n', encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / 'a.jsonl', name='x'))
    assert text_of(data / 'x', 'train')[:5] == 'a😀b\ufffdc'


def test_more_characters_than_uint16_has_ids(data, tmp_path):
    text = ''.join(map(chr, range(0x10000, 0x10000 + 70000)))
    (tmp_path / 'wide.txt').write_text(text, encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / 'wide.txt', name='x'))
    meta = load_meta(str(data / 'x' / 'meta.pkl'))
    assert (meta['vocab_size'], meta['dtype']) == (70000, 'uint32')
    assert text_of(data / 'x', 'train') + text_of(data / 'x', 'val') == text
    assert prepare.Tokens(data / 'x', 'val', meta, 70000, 8).windows(np.array([6990])).max() == 69998 # as train.py reads it
    meta.pop('dtype')
    with pytest.raises(SystemExit, match='uint32'): # in uint16 ids would wrap
        prepare.write_bins(str(data / 'x'), lambda n: [(text, False, 'train')][n:], meta, len(text))


def test_parts_and_pieces_do_not_show(monkeypatch, tmp_path):
    """However a file is cut for reading, its text, its line ends and its split are those of the whole."""
    text = '\ufeffünï 木🌲 _word_. next\r\n\tline' * 40
    (tmp_path / 'a.txt').write_bytes(text.encode())
    want = text[1:].replace('\r\n', '\n') # the marks within are text
    for size in (1, 2, 3, 7, 50, 10 ** 6):
        monkeypatch.setattr(prepare, 'PIECE', size)
        pieces = list(prepare.documents_of([tmp_path / 'a.txt'], ''))
        assert ''.join(text for text, _ in pieces) == want == prepare.read_text(tmp_path / 'a.txt')
        assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]
        split = list(prepare.split_of(pieces, [len(want)]))
        assert tuple(''.join(t for t, _, s in split if s == name) for name in ('train', 'val')) == prepare.parted(want)
    (tmp_path / 'bad.txt').write_bytes(b'good ' * 10 + b'\xff')
    monkeypatch.setattr(prepare, 'PIECE', 7)
    with refused('bad.txt', 'byte 50'):
        prepare.read_text(tmp_path / 'bad.txt')


def test_pieces_have_the_tokens_of_the_whole(bpe, shakespeare, monkeypatch):
    text = prepare.read_text(shakespeare)[:20000] + ' x  y\n\n\nz 1 23  ' * 50
    monkeypatch.setattr(prepare, 'PIECE', 200)
    pieces = [text for text, _ in prepare.pieces_of(text[i:i + 200] for i in range(0, len(text), 200))]
    assert ''.join(pieces) == text and len(pieces) > 90
    assert [i for piece in pieces for i in bpe.encode_ordinary(piece)] == bpe.encode_ordinary(text)


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl'])
def test_millions_of_spaces_in_a_row(data, bpe, tmp_path, name):
    """More than tiktoken encodes at once."""
    text = 'one' + ' ' * 1_100_000 + 'two ' * 50_000
    (tmp_path / name).write_text(json.dumps({'text': text}) if name == 'a.jsonl' else text, encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / name, name='x', tokenizer='gpt2'))
    assert ''.join(text_of(data / 'x', split).removesuffix('<|endoftext|>') for split in ('train', 'val')) == text


def test_pieces_end_in_a_letter_or_digit_before_a_space(monkeypatch):
    """At other places some BPE has a token that would be cut, such as cl100k_base's of an underscore and a line end."""
    monkeypatch.setattr(prepare, 'PIECE', 10)
    assert [text for text, _ in prepare.pieces_of(['a b_\nc\td\u00a0e.f'])] == ['a', ' b_\nc\td\u00a0e.f']


# ---- tokenizers ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def wide(monkeypatch):
    """Stands in for cl100k_base, whose tables need the network: an encoding of tiktoken with 100,001 ids, most of them unused."""
    tiktoken = pytest.importorskip('tiktoken')
    ranks = {bytes([i]): i for i in range(256)} | {b'th': 300, b' th': 70000, b' the': 70001}
    encoding = tiktoken.Encoding('wide', pat_str=r' ?\w+|\s+(?!\S)|\s+|[^\w\s]+', mergeable_ranks=ranks, special_tokens={prepare.END: 100000, '<|other|>': 99999})
    monkeypatch.setattr(tiktoken, 'get_encoding', lambda name: encoding)
    monkeypatch.setattr(tiktoken, 'list_encoding_names', lambda: ['gpt2', 'wide'])
    return prepare.codec_of(encoding.n_vocab, tokenizer='tiktoken:wide')


@pytest.fixture(scope='module')
def learned():
    pytest.importorskip('tokenizers')
    return prepare.bpe_codec(['the cat and the dog, the end. ünï 木\n' * 9], 300)


@pytest.mark.parametrize('kind', ['char', 'gpt2', 'wide', 'learned'])
def test_a_bin_holds_the_text_it_came_from(kind, tmp_path, request, monkeypatch):
    """For any texts, with <|endoftext|> after each, which within a text is text; and what is sampled decodes as it streams."""
    hypothesis = pytest.importorskip('hypothesis')
    st = hypothesis.strategies
    meta = request.getfixturevalue(kind) if kind in ('wide', 'learned') else None
    if kind == 'gpt2':
        request.getfixturevalue('bpe')
    monkeypatch.setattr(prepare, 'tqdm', lambda **settings: request.getfixturevalue('silent'))
    texts = st.lists(st.one_of(st.text(max_size=30), st.text('the <|endoftext|>\n', max_size=30), st.just(f'a{prepare.END}b the<|other|>')), min_size=1, max_size=5)

    @hypothesis.settings(max_examples=25, deadline=None, database=None, derandomize=True)
    @hypothesis.given(texts, st.integers(1, 30))
    def check(texts, size):
        prepare.PIECE = size
        alphabet = sorted(set('\n'.join(texts))) or ['a']
        codec = prepare.char_codec(alphabet) if kind == 'char' else meta
        pieces = [(text, True, 'val' if i % 3 else 'train') for i, text in enumerate(texts)]
        prepare.write_bins(str(tmp_path), lambda n: pieces[n:], codec, 1)
        end = '' if kind == 'char' else prepare.END
        encode, decode, n_vocab, end_of_text = get_codec(load_meta(str(tmp_path / 'meta.pkl')))
        for split in ('train', 'val'):
            got = ids(tmp_path / f'{split}.bin', (codec or {}).get('dtype', '<u2'))
            mine = [text for text, _, s in pieces if s == split]
            assert decode(got.tolist()) == ''.join(text + end for text in mine)
            if end:
                assert np.count_nonzero(got == end_of_text) == len(mine)
        shown, stream = '', prepare.Text([], decode, 10 ** 6)
        for i in encode(texts[0]):
            stream.add([i])
            shown += stream.fresh()
            assert not shown.endswith('\ufffd') or texts[0].count('\ufffd')
        assert shown == texts[0] or texts[0].endswith('\ufffd')

    before = prepare.PIECE
    try:
        check()
    finally:
        prepare.PIECE = before


@pytest.fixture
def silent():
    """A progress bar that shows nothing."""
    class Bar:
        __enter__ = lambda self: self
        __exit__ = lambda self, *args: None
        update = lambda self, n: None
    return Bar()


def test_an_encoding_of_tiktoken_by_name(data, wide, tmp_path):
    (tmp_path / 'a.txt').write_text('the end of the <|other|> line\n' * 20, encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer='wide'))
    meta = load_meta(str(data / 'x' / 'meta.pkl'))
    assert meta == {'vocab_size': 100001, 'tokenizer': 'tiktoken:wide', 'dtype': 'uint32'}
    train = ids(data / 'x' / 'train.bin', '<u4')
    assert train.max() == train[-1] == 100000 and 70001 in train and 99999 not in train
    assert text_of(data / 'x', 'train') == ('the end of the <|other|> line\n' * 20)[:540] + prepare.END
    encode, decode, n_vocab, end = get_codec(meta)
    assert encode('a<|endoftext|>') == [97, 100000] and (n_vocab, end) == (100001, 100000)
    assert decode([97, 5000, 98]) == 'ab' # 5000 is nothing


def test_a_bpe_is_learned_from_text_without_spaces():
    """Of which a word so long as the text would take hours."""
    pytest.importorskip('tokenizers')
    learned = json.loads(prepare.bpe_codec(['a' * 5000], 300)['json'])['model']['vocab']
    assert 500 <= max(len(token) for token in learned if set(token) == {'a'}) <= 1000
    for space in ' \n':
        assert prepare.bpe_codec(['hello ' * 50 + space * 300_000 + 'end'], 300)['vocab_size'] > 257


def test_a_bpe_of_ones_own_is_the_same_each_time(data, tmp_path):
    pytest.importorskip('tokenizers')
    (tmp_path / 'a.txt').write_text('the cat and the dog ünï\n' * 99 + 'zz' * 60, encoding='utf-8') # the end is of val.bin
    made = []
    for seed in '12':
        result = run_process(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer='bpe:290', env=dict(PYTHONHASHSEED=seed))
        assert result.code == 0, result.err
        made.append({p.name: p.read_bytes() for p in (data / 'x').iterdir()})
    assert made[0] == made[1] and set(made[0]) == {'train.bin', 'val.bin', 'meta.pkl'}
    meta = load_meta(str(data / 'x' / 'meta.pkl'))
    assert set(meta) == {'vocab_size', 'tokenizer', 'json'} and 257 < meta['vocab_size'] <= 290
    assert len(ids(data / 'x' / 'train.bin')) < 99 * 24 * 0.9 / 3 and 'zz' not in meta['json']


@pytest.mark.parametrize('harm', [dict(json=''), dict(json='{}'), dict(json=7), dict(json=None), dict(vocab_size=5), dict(vocab_size=True), dict(tokenizer='words'),
                                  dict(tokenizer=['bpe']), dict(tokenizer='tiktoken:words'), dict(tokenizer='tiktoken:wide'), dict(dtype='object'),
                                  dict(normalizer=dict(type='Replace', pattern=dict(String='a'), content='a' * 99)), dict(normalizer=dict(type='Precompiled', precompiled_charsmap='AAAA')),
                                  dict(decoder=dict(type='Strip', content='e', start=2 ** 40, stop=0)), dict(decoder=None), dict(model=dict(type='BPE', continuing_subword_prefix='##'))])
def test_a_damaged_tokenizer_is_a_sentence(learned, wide, harm):
    with refused():
        definition = json.loads(learned['json'])
        rewritten = json.dumps(definition | harm | dict(model=definition['model'] | harm.get('model', {}))) if {'normalizer', 'decoder', 'model'} & {*harm} else learned['json']
        get_codec({**learned, 'json': rewritten, **harm})


def test_a_tokenizer_may_normalize(learned):
    """As some on the hub do, in ways that are safe to run."""
    definition = json.loads(learned['json']) | dict(normalizer=dict(type='NFC'))
    encode = get_codec({**learned, 'json': json.dumps(definition)})[0]
    assert encode('u\u0308') == encode('\u00fc')


def test_a_package_that_is_missing_is_named(data, tmp_path, monkeypatch):
    (tmp_path / 'a.txt').write_text(TEXT, encoding='utf-8')
    monkeypatch.setitem(sys.modules, 'tiktoken', None) # as if it were not installed
    run(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer='gpt2').refused('needs the package tiktoken: pip install tiktoken')


def test_a_word_of_someone_elses_for_a_tokenizer_decides_nothing():
    """nanoGPT reads vocab_size, stoi and itos only, so its users write into meta.pkl what they like."""
    assert prepare.check_codec({**CODEC, 'tokenizer': 'letters'}) == 'char'
    assert prepare.check_codec({'vocab_size': 50257, 'tokenizer': 'gpt2'}) == 'none'
    with pytest.raises(TypeError, match='no text'):
        prepare.check_codec({'vocab_size': 300, 'tokenizer': 'bpe', 'json': 7})


def test_training_and_sampling_with_a_bpe_of_ones_own(data, tmp_path):
    pytest.importorskip('tokenizers')
    (tmp_path / 'a.txt').write_text('the cat and the dog, ünï 木🌲.\n' * 99, encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer='bpe:300'))
    train(data / 'x', tmp_path / 'out')
    shutil.rmtree(data / 'x') # the checkpoint carries its tokenizer
    for n in (1, 2):
        result = run('sample.py', out_dir=tmp_path / 'out', start='ünï 木🌲', num_samples=n, max_new_tokens=30, temperature=5, device='cpu')
        assert result.code == 0, result.err
        text = result.out.split('number of parameters')[1]
        assert text.count('---------------') == text.count('ünï 木🌲') == n


# ---- bins ----------------------------------------------------------------------------------------------------------------
class Pieces:
    """30 pieces of which every third is for val; stops at the one named, and counts how many were asked for."""
    def __init__(self, stop=None, n=30):
        self.stop, self.n, self.given = stop, n, 0
    def __call__(self, start):
        for i in range(start, self.n):
            if i == self.stop:
                raise KeyboardInterrupt
            self.given += 1
            yield f'{i:04}', i % 2 == 0, 'train' if i % 3 else 'val'


CODEC = prepare.char_codec('0123456789')


@pytest.mark.parametrize('harm', ['none', 'a torn tail', 'a tail that is lost', 'another text', 'another tokenizer', 'a torn mark', 'a strange mark'])
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, harm):
    monkeypatch.setattr(prepare, 'PIECE', 8)
    prepare.write_bins(str(tmp_path / 'whole'), Pieces(), CODEC, 120)
    whole = {p.name: p.read_bytes() for p in (tmp_path / 'whole').iterdir()}
    assert set(whole) == {'train.bin', 'val.bin', 'meta.pkl'} and len(whole['train.bin']) == 2 * len(whole['val.bin']) == 160

    folder, part = tmp_path / 'x', tmp_path / 'x' / 'train.bin.part'
    folder.mkdir()
    (folder / 'train.bin').write_bytes(b'an earlier one')
    with pytest.raises(SystemExit, match='goes on from here'):
        prepare.write_bins(str(folder), Pieces(stop=26), prepare.char_codec('9876543210') if harm == 'another tokenizer' else CODEC, 120)
    assert (folder / 'train.bin').read_bytes() == b'an earlier one' # until the new one is whole
    _, done, behind, _ = json.loads((folder / 'prepare.part.json').read_text(encoding='utf-8'))
    assert done > 0 or os.cpu_count() > 5
    if harm == 'a torn tail': # killed while it wrote
        part.write_bytes(part.read_bytes() + b'\7\7\7')
    elif harm == 'a tail that is lost': # the machine lost power before the disk had it all
        part.write_bytes(part.read_bytes()[:-8])
    elif harm.endswith('mark'):
        (folder / 'prepare.part.json').write_bytes(b'' if harm == 'a torn mark' else b'{"5": 5}')
    elif harm == 'none':
        monkeypatch.setattr(shutil, 'disk_usage', lambda folder: (10**12, 0, 2 * (120 - behind))) # room for the rest, no more
    pieces = Pieces()
    prepare.write_bins(str(folder), pieces, CODEC, 120, source='another' if harm == 'another text' else '')
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole
    assert pieces.given == 30 - (done if harm in ('none', 'a torn tail') else 0)


def test_a_run_that_starts_anew_may_begin_without_text_for_val(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, 'PIECE', 8)
    with pytest.raises(SystemExit, match='goes on from here'):
        prepare.write_bins(str(tmp_path), Pieces(stop=26), CODEC, 120)
    assert (tmp_path / 'val.bin.part').stat().st_size > 0 or os.cpu_count() > 5
    prepare.write_bins(str(tmp_path), lambda n: [('1234', True, 'train')] * 9 + [('5678', True, 'val')], CODEC, 40, source='another')
    assert [(tmp_path / f'{split}.bin').stat().st_size for split in ('train', 'val')] == [2 * 36, 2 * 4]


def test_a_run_of_the_command_goes_on(data, tmp_path, monkeypatch):
    """Killed between two groups of a real input; what it ends with is what it would have made at once."""
    (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'text': f'Document {i}\n' * 9}) + '\n' for i in range(99)), encoding='utf-8')
    source = (data / 'prepare.py').read_text(encoding='utf-8')
    (data / 'prepare.py').write_text(source.replace('PIECE = 2 ** 18', 'PIECE = 200'), encoding='utf-8')
    done(run(data / 'prepare.py', tmp_path / 'a.jsonl', name='x'))
    whole = {p.name: p.read_bytes() for p in (data / 'x').iterdir()}
    shutil.rmtree(data / 'x')
    replace, marks = os.replace, []
    def failing(a, b):
        marks.append(str(b).endswith('.json'))
        if sum(marks) == 20:
            raise KeyboardInterrupt
        replace(a, b)
    monkeypatch.setattr(os, 'replace', failing)
    run(data / 'prepare.py', tmp_path / 'a.jsonl', name='x').refused('stopped', 'same command')
    assert json.loads((data / 'x' / 'prepare.part.json').read_text())[1] > 0 and not (data / 'x' / 'train.bin').exists()
    monkeypatch.undo()
    done(run(data / 'prepare.py', tmp_path / 'a.jsonl', name='x'))
    assert {p.name: p.read_bytes() for p in (data / 'x').iterdir()} == whole


def test_a_run_goes_on_only_with_the_same_files_and_field(tmp_path, monkeypatch):
    path, sources = tmp_path / 'a.jsonl', []
    monkeypatch.setattr(prepare, 'write_bins', lambda *args: sources.append(args[4]))
    path.write_text(json.dumps(dict(text='a' * 200, body='b' * 200)), encoding='utf-8')
    for second, field in (1, 'text'), (1, 'text'), (2, 'text'), (2, 'body'):
        os.utime(path, (second, second)) # as if another text of this length were written
        monkeypatch.setattr(sys, 'argv', ['prepare.py', str(path), '--name=x', f'--field={field}'])
        prepare.main()
    assert sources[0] == sources[1] != sources[2] != sources[3]


@pytest.mark.parametrize('name, text', [('a.txt', 'known letters'), ('a.txt', 'ünï'), ('a.txt', None), ('a.jsonl', '{"text": "one more"}')])
def test_a_file_that_changes_while_it_is_read(data, tmp_path, monkeypatch, name, text):
    path, makedirs = tmp_path / name, os.makedirs
    path.write_text('{"text": "known letters, one more"}\n' * 5, encoding='utf-8')
    def changing(folder, **more): # the folder is made between the first reading and the second
        makedirs(folder, **more)
        path.write_text(path.read_text(encoding='utf-8') + text if text else 'short', encoding='utf-8')
    monkeypatch.setattr(os, 'makedirs', changing)
    run(data / 'prepare.py', path, name='x').refused('changed while it was read')
    assert not (data / 'x' / 'train.bin').exists()


@pytest.mark.skipif(os.name != 'posix', reason="the shell's way to close streams")
def test_without_a_console(data, tmp_path):
    (tmp_path / 'a.txt').write_text('some text ' * 50, encoding='utf-8')
    done = subprocess.run(['sh', '-c', '"$@" >&- 2>&-', '', sys.executable, data / 'prepare.py', tmp_path / 'a.txt', '--name=x'])
    assert done.returncode == 0 and len(ids(data / 'x' / 'train.bin')) == 450


def test_a_codepage_without_the_letters_of_a_folder(data, tmp_path):
    folder = tmp_path / '\u65e5'
    folder.mkdir()
    (folder / 'a.txt').write_text('some text ' * 50, encoding='utf-8')
    (folder / 'a.png').touch() # which is said to be left out
    out = done(run_process(data / 'prepare.py', folder, name='\u65e5', env=dict(PYTHONIOENCODING='cp1252'))).out
    assert 'vocabulary' in out and '1 files are read; 1 are not' in out


def test_a_folder_that_may_not_be_read_is_not_left_out(data, tmp_path, monkeypatch):
    (tmp_path / 'in' / 'secret').mkdir(parents=True)
    (tmp_path / 'in' / 'a.txt').write_text('some text ' * 50, encoding='utf-8')
    scandir = os.scandir
    def locked(path): # chmod would not keep root out
        if str(path).endswith('secret'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)
    monkeypatch.setattr(os, 'scandir', locked)
    run(data / 'prepare.py', tmp_path / 'in', name='x').refused('Permission denied', 'secret')


def test_a_file_is_read_once_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('a.txt').touch()
    assert len(prepare.files_of(['a.txt', './a.txt', str(tmp_path / 'a.txt'), '*.txt'])) == 1


def test_a_disk_without_room_for_meta_leaves_no_bins_without_it(data, tmp_path, monkeypatch):
    """They would be read as GPT-2's ids."""
    (tmp_path / 'a.txt').write_text('some text ' * 50, encoding='utf-8')
    replace = os.replace
    def full(a, b):
        if str(b).endswith('meta.pkl.part'):
            raise OSError(28, 'No space left on device')
        replace(a, b)
    monkeypatch.setattr(os, 'replace', full)
    run(data / 'prepare.py', tmp_path / 'a.txt', name='x').refused('No space left')
    assert not list((data / 'x').glob('*.bin'))


@pytest.mark.parametrize('tokenizer', ['gpt2', 'char'])
def test_old_bins_keep_their_meta_until_new_ones_have_their_names(data, tmp_path, monkeypatch, request, tokenizer):
    if tokenizer == 'gpt2':
        request.getfixturevalue('bpe')
    for text in 'some text ', 'other words, 42 ':
        (tmp_path / 'a.txt').write_text(text * 50, encoding='utf-8')
        if text == 'some text ':
            done(run(data / 'prepare.py', tmp_path / 'a.txt', name='x'))
            before = {p.name: p.read_bytes() for p in (data / 'x').iterdir()}
    replace = os.replace
    def busy(a, b):
        if str(b).endswith('.bin'):
            raise PermissionError(13, 'Access is denied', b)
        replace(a, b)
    monkeypatch.setattr(os, 'replace', busy)
    run(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer=tokenizer).refused('Access is denied')
    assert {name: (data / 'x' / name).read_bytes() for name in before} == before


def test_a_log_among_the_files_may_grow_after_they_are_read(data, tmp_path):
    """As with > log.txt in the folder that is prepared."""
    (tmp_path / 'a.txt').write_text('some text ' * 50, encoding='utf-8')
    with open(tmp_path / 'log.txt', 'w') as log:
        assert subprocess.run([sys.executable, str(data / 'prepare.py'), str(tmp_path), '--name=x'], stdout=log, timeout=600).returncode == 0


def test_a_disk_that_refuses_costs_a_sentence(data, monkeypatch):
    def refuse(*args, **more):
        raise PermissionError(13, 'Permission denied', 'train.bin.part')
    monkeypatch.setattr(os, 'makedirs', refuse)
    (data / 'shakespeare_char' / 'input.txt').write_text(TEXT, encoding='utf-8')
    run(data / 'shakespeare_char' / 'prepare.py').refused('Permission denied', 'train.bin.part')


def test_a_second_writer_is_refused_before_it_writes(tmp_path):
    fcntl = pytest.importorskip('fcntl', reason='Windows has no such locks')
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with refused('another process is writing'):
            prepare.write_parts(str(tmp_path), 'a' * 900, 'b' * 100)
        assert not os.listdir(tmp_path)
    finally:
        os.close(fd)
    prepare.write_parts(str(tmp_path), 'a' * 900, 'b' * 100)
    assert len(ids(tmp_path / 'train.bin')) == 900


def test_a_bin_that_is_cut_during_a_run_ends_in_a_sentence(data, tmp_path):
    prepare.write_parts(str(tmp_path), 'ab' * 2000, 'b' * 100)
    tokens = prepare.Tokens(tmp_path, 'train', None, 2, 16)
    for size in 4001, 20, 0:
        os.truncate(tmp_path / 'train.bin', size)
        with refused('train.bin has'):
            len(tokens)


def test_two_that_write_one_dataset_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, 'PIECE', 8)
    def pieces_from(start):
        for i, piece in enumerate(Pieces(n=600)(start)):
            if i == 300:
                with open(tmp_path / 'train.bin.part', 'ab') as f: # as the other one does
                    f.write(b'\1\0')
            yield piece
    with refused('another process is writing'):
        prepare.write_bins(str(tmp_path), pieces_from, CODEC, 2400)
    assert not (tmp_path / 'train.bin').exists()
    prepare.write_bins(str(tmp_path), Pieces(n=600), CODEC, 2400)
    prepare.write_bins(str(tmp_path / 'alone'), Pieces(n=600), CODEC, 2400)
    assert all((tmp_path / name).read_bytes() == (tmp_path / 'alone' / name).read_bytes() for name in ('train.bin', 'val.bin'))


def test_no_more_is_read_than_is_soon_written(tmp_path, monkeypatch):
    """Of a long input only a few groups are in memory at a time."""
    monkeypatch.setattr(prepare, 'PIECE', 8) # two pieces
    pieces, ahead, replace = Pieces(n=600), [], os.replace
    def counting(a, b):
        if str(b).endswith('.json'):
            _, done, _, sizes = json.loads(Path(a).read_text(encoding='utf-8'))
            assert all((tmp_path / 'x' / f'{split}.bin.part').stat().st_size >= n for split, n in sizes.items()) # if it is killed now
            ahead.append(pieces.given - done)
        replace(a, b)
    monkeypatch.setattr(prepare.os, 'replace', counting)
    prepare.write_bins(str(tmp_path / 'x'), pieces, CODEC, 2400)
    assert len(ahead) >= 300 and max(ahead) <= 2 * (2 * os.cpu_count() + 1)


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, learned):
    for codec, need in (CODEC, '2000.0 GB'), (learned, '500.0 GB'): # a token of BPE is about four characters
        with refused(need):
            prepare.write_bins(str(tmp_path), Pieces(), codec, 10 ** 12)
    assert not list(tmp_path.iterdir())


def test_an_id_that_is_too_large_is_named_when_it_is_read(tmp_path):
    (np.arange(400, dtype=np.uint16) % 3).tofile(tmp_path / 'val.bin')
    tokens = prepare.Tokens(tmp_path, 'val', None, 3, 8)
    with open(tmp_path / 'val.bin', 'r+b') as f: # as beyond what is looked at in the beginning
        f.seek(200)
        f.write(b'\3\0')
    with refused('the id 3'):
        tokens.windows(np.array([95]))


# ---- meta.pkl ------------------------------------------------------------------------------------------------------------
class Touch:
    """Unpickled the ordinary way, makes a file."""
    def __init__(self, path):
        self.path = path
    def __reduce__(self):
        return open, (self.path, 'w')


def test_a_meta_that_holds_a_class_runs_nothing(tmp_path):
    trace, path = tmp_path / 'trace', tmp_path / 'meta.pkl'
    plain = dict(vocab_size=1, stoi={'a': 0}, itos={0: 'a'})
    for bad in (Touch(str(trace)), dict(plain, more=Touch(str(trace))), dict(plain, vocab_size=np.int64(1))):
        path.write_bytes(pickle.dumps(bad))
        with refused('meta.pkl.*not loaded'):
            load_meta(str(path))
        assert not trace.exists()
    path.write_bytes(pickle.dumps(plain))
    assert load_meta(str(path)) == plain
    assert load_meta(str(tmp_path / 'none.pkl')) is None


@pytest.mark.parametrize('content', [
    b'', b'nonsense', pickle.dumps([1]), pickle.dumps({}), pickle.dumps(dict(vocab_size='1', stoi={}, itos={})),
    pickle.dumps(dict(vocab_size=1, stoi=[1], itos=None)), pickle.dumps(dict(vocab_size=1, stoi={'a': 0}, itos={0: 'a'}))[:-5],
])
def test_a_damaged_meta_is_a_sentence(tmp_path, content):
    (tmp_path / 'meta.pkl').write_bytes(content)
    with refused('meta.pkl'):
        load_meta(str(tmp_path / 'meta.pkl'))


def test_too_little_space_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: (10**12, 0, 10))
    with pytest.raises(SystemExit, match='the dataset takes 0.0 GB, and .* has 0.0 GB free'):
        prepare.write_bins(str(tmp_path / 'a' / 'b'), lambda n: [], CODEC, 120)
