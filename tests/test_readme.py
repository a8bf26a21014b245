"""What the README and docs/scaling.md say can be done can be done."""
import ast
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, run

README = (ROOT / 'README.md').read_text(encoding='utf-8')
TEXTS = README + (ROOT / 'docs/scaling.md').read_text(encoding='utf-8')
COMMANDS = [part.strip() for block in re.findall(r'^```sh\n(.*?)^```', TEXTS, re.M | re.S)
            for line in block.replace('\\\n', ' ').splitlines() for part in line.split('&&')]


def settings(script):
    """The names that a script assigns at its top level."""
    tree = ast.parse((ROOT / script).read_text(encoding='utf-8'))
    return {t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}


@pytest.mark.parametrize('command', [c for c in COMMANDS if re.search(r'\.py\b|pytest', c) and not c.startswith('pip')])
def test_commands_name_what_there_is(command):
    words = shlex.split(command)
    script = next(w for w in words if w.endswith('.py') or w == 'pytest')
    if script == 'pytest':
        return
    assert (ROOT / script).is_file()
    for word in words[words.index(script) + 1:]:
        if word.startswith('config/'):
            assert (ROOT / word).is_file(), word
        elif word.startswith('--') and not script.startswith('data/') and word != '--help':
            assert word[2:].split('=')[0] in settings(script), word


@pytest.mark.parametrize('command', [c for c in COMMANDS if 'nproc_per_node' in c])
def test_processes_can_share_the_micro_batches(command, monkeypatch):
    """That is checked first; what train.py then misses is the data."""
    launch, _, args = command.replace('$SLURM_NNODES', '2').partition(' train.py ')
    options = dict(word[2:].split('=') for word in shlex.split(launch) if word.startswith(('--nnodes', '--nproc_per_node')))
    for k, v in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=int(options.get('nnodes', 1)) * int(options['nproc_per_node'])).items():
        monkeypatch.setenv(k, str(v))
    run('train.py', *shlex.split(args), device='cpu', dataset='no-such-data').refused('no-such-data')


def test_settings_of_train_that_scaling_names_are_there():
    """Those in its sentences too; the rest is torchrun's."""
    from torch.distributed.run import get_args_parser
    of_torchrun = {name.lstrip('-').replace('-', '_') for action in get_args_parser()._actions for name in action.option_strings}
    if 'shutdown_timeout' not in of_torchrun:
        pytest.skip(f"the page names options that torchrun has from torch 2.12 on, this is {torch.__version__}")
    doc = (ROOT / 'docs/scaling.md').read_text(encoding='utf-8').split('### Slurm')
    doc = doc[0] + doc[1].split('Five minutes before', 1)[1] # Slurm has its own
    named = {name.replace('-', '_') for name in re.findall(r'`--([a-z0-9_-]+)', doc)}
    assert {'fsdp', 'signals_to_handle'} <= named and named - {'signal', 'cpus_per_task'} <= settings('train.py') | of_torchrun


def test_links_lead_somewhere():
    for target in re.findall(r'\]\(([^)]+)\)', README):
        assert target.startswith('https://') or (ROOT / target).exists(), target
    for target in re.findall(r'(?:src|srcset)="([^"]+)"', README):
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize('name', 'bench eval long middle sample small small-compiled start vocab'.split())
def test_figures_are_those_that_were_measured(name):
    """The first of those that compare.py wrote."""
    job, _, compiled = name.partition('-')
    row = json.loads((ROOT / f"assets/results/{job}-cpu{'-compiled' * bool(compiled)}.json").read_text(encoding='utf-8'))['rows'][0]
    spread = [f"{row['least']:.{digits}f} to {row['most']:.{digits}f}" for digits in (1, 2)]
    assert len(row['ours']) == 1 or any(part in README for part in spread), spread
    assert any(f"| {row['ratio']:.{digits}f}{sign} | 1 |" in README for digits in (0, 1, 2) for sign in (' ×', ''))


@pytest.mark.slow
def test_the_first_command_ends_with_python(tmp_path):
    """All of it but the installation, in a copy of what git tracks."""
    for name in subprocess.check_output(['git', 'ls-files'], cwd=ROOT, text=True).split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = re.search(r'<!-- start -->\n```sh\n(.*?)\n```', README, re.S).group(1)
    command = command.split('&&', 1)[1].replace('python ', shlex.quote(sys.executable) + ' ')
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    samples = done.stdout.split('number of parameters')[-1].split('---------------')
    assert len(samples) == 4
    text = ''.join(samples)
    assert len(re.findall(r'^ *(?:def \w+\(|class |if .*:|return |self\.|import )', text, re.M)) >= 8, text
