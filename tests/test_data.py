"""data/prepare.py and the scripts that use it, run from a copy of data/ so that nothing is written into the repository."""
import hashlib
import http.server
import importlib.util
import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run, run_process

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


def ids(path):
    return np.fromfile(path, dtype='<u2')


def text_of(folder, split):
    return get_codec(load_meta(str(folder / 'meta.pkl')))[1](ids(folder / f'{split}.bin').tolist())


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
    train, val = text_of(folder, 'train'), text_of(folder, 'val')
    assert set(train + val) <= {'\n', *map(chr, range(32, 127))} and load_meta(str(folder / 'meta.pkl'))['vocab_size'] == len(set(train + val))
    assert len(train) + len(val) == sum(map(len, texts)) and 0.05 < len(val) / len(train) < 0.2
    longest = sorted(set(texts), key=len)[-60:]
    assert all((t in train) != (t in val) for t in longest) and any(t in val for t in longest) # a module is on one side only


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
    assert not (data / 'meta.pkl').exists()


def test_openwebtext_refusals(data, bpe, tmp_path):
    pytest.importorskip('datasets')
    script = data / 'openwebtext' / 'prepare.py'
    run(script, source=tmp_path / 'nowhere').refused('prepare.py: ', 'nowhere')
    for n in ('many', '-5'):
        run(script, source=tmp_path / 'nowhere', max_docs=n).refused('prepare.py: ', 'max_docs')


# ---- your own text -------------------------------------------------------------------------------------------------------
def test_one_file(data, tmp_path):
    text = 'ünï line\n' * 50
    (tmp_path / 'notes.txt').write_text(text, encoding='utf-8')
    result = done(run(data / 'prepare.py', tmp_path / 'notes.txt', name='notes', tokenizer='char'))
    folder = data / 'notes'
    assert text_of(folder, 'train') == text[:405] and text_of(folder, 'val') == text[405:]
    assert result.out.splitlines()[-1] == 'now: python train.py config/train_shakespeare_char.py --dataset=notes --out_dir=out-notes'


def test_a_folder_of_files(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'texts'
    (source / 'more').mkdir(parents=True)
    names = [f'{i:02}.txt' for i in range(10)] + ['more/a.md', 'more/b.py']
    for i, name in enumerate(names):
        (source / name).write_text(chr(ord('a') + i) * 100, encoding='utf-8')
    (source / 'picture.png').write_bytes(b'\xff' * 200)
    done(run(data / 'prepare.py', 'texts', name='many', tokenizer='char'))
    train, val = text_of(data / 'many', 'train'), text_of(data / 'many', 'val')
    assert set(val) - {'\n'} == {'a', 'k'} and set(train) & set(val) == {'\n'} # every tenth file, whole
    assert len(set(train + val)) == 13


def test_short_files_in_a_folder_do_no_harm(data, tmp_path):
    source = tmp_path / 'package'
    source.mkdir()
    (source / '__init__.py').write_text('', encoding='utf-8')
    (source / 'code.py').write_text('x = 1\n' * 100, encoding='utf-8')
    done(run(data / 'prepare.py', source, name='package', tokenizer='char'))
    assert (text_of(data / 'package', 'train') + text_of(data / 'package', 'val')).count('x = 1') == 100


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
    def unreachable(name):
        raise ConnectionError('no route')
    monkeypatch.setattr(tiktoken, 'get_encoding', unreachable)
    (tmp_path / 'a.txt').write_text(TEXT, encoding='utf-8')
    run(data / 'prepare.py', tmp_path / 'a.txt', name='x', tokenizer='gpt2').refused('prepare.py: ', 'no route')


# ---- bins ----------------------------------------------------------------------------------------------------------------
def test_ids_that_do_not_fit_are_refused(tmp_path):
    path = str(tmp_path / 'a.bin')
    prepare.write_bin(path, [0, 65535])
    before = Path(path).read_bytes()
    assert before == b'\0\0\xff\xff'
    for bad in ([0, 65536], [-1, 5]):
        with refused('uint16'):
            prepare.write_bin(path, bad)
        assert Path(path).read_bytes() == before # the good file is untouched
    prepare.write_bin(path, [65536], dtype='uint32')
    assert Path(path).read_bytes() == b'\0\0\1\0'


class Codes:
    """A stand-in for tiktoken's encoding that fails at the batches named."""
    eot_token = EOT
    def __init__(self, *failing):
        self.failing, self.batches = failing, 0
    def encode_ordinary_batch(self, texts, num_threads):
        self.batches += 1
        if self.batches - 1 in self.failing:
            raise KeyboardInterrupt
        return [[ord(c) for c in text] for text in texts]


DOCUMENTS = ['x' * (i % 7) + chr(256 + i) for i in range(25)]
ONE_BY_ONE = [i for text in DOCUMENTS for i in (*map(ord, text), EOT)]


@pytest.mark.parametrize('chunk', [1, 7, 25, 1000])
def test_documents_are_written_in_order(tmp_path, chunk):
    prepare.write_documents(str(tmp_path / 'a.bin'), DOCUMENTS, Codes(), chunk)
    assert ids(tmp_path / 'a.bin').tolist() == ONE_BY_ONE
    assert [p.name for p in tmp_path.iterdir()] == ['a.bin']


@pytest.mark.parametrize('harm', ['none', 'a torn tail', 'a tail that is lost', 'fewer documents now'])
def test_an_interrupted_run_goes_on(tmp_path, harm):
    path, part = tmp_path / 'a.bin', tmp_path / 'a.bin.part'
    path.write_bytes(b'an earlier one')
    with pytest.raises(KeyboardInterrupt):
        prepare.write_documents(str(path), DOCUMENTS, Codes(2), 5)
    assert path.read_bytes() == b'an earlier one' # until the new one is whole
    documents, wanted = DOCUMENTS, ONE_BY_ONE
    if harm == 'a torn tail': # killed while it wrote
        part.write_bytes(part.read_bytes() + b'\7\7\7')
    elif harm == 'a tail that is lost': # the machine lost power before the disk had it all
        part.write_bytes(part.read_bytes()[:-8])
    elif harm == 'fewer documents now': # another --max_docs
        documents, wanted = DOCUMENTS[:20], ONE_BY_ONE[:-sum(len(d) + 1 for d in DOCUMENTS[20:])]
    codes = Codes()
    prepare.write_documents(str(path), documents, codes, 5)
    assert ids(path).tolist() == wanted
    assert [p.name for p in tmp_path.iterdir()] == ['a.bin']
    if harm in ('none', 'a torn tail'):
        assert codes.batches == 3 # of five, two were done


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
