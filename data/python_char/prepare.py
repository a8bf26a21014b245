"""
Python by characters: the standard library of the interpreter that runs this, so nothing is downloaded.

The same Python version gives the same bins. Every tenth file, by name, goes to val.bin, so that both splits hold the same
kinds of modules and no file is in both.
"""
import os
import sys
import sysconfig

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import stop, takes_no_arguments, write_parts

takes_no_arguments()

skipped = {'site-packages', 'dist-packages', '__pycache__', 'test', 'tests', 'idlelib', 'lib2to3', 'turtledemo', # programs and tests
           'encodings', 'pydoc_data', 'sitecustomize.py', 'usercustomize.py'} # tables, and files that differ between machines

library = sysconfig.get_path('stdlib')
texts = []
for parent, folders, files in os.walk(library):
    folders[:] = sorted(f for f in folders if f not in skipped and not f.startswith('config-'))
    for name in sorted(files):
        if name.endswith('.py') and name not in skipped and not name.startswith('_sysconfigdata'):
            with open(os.path.join(parent, name), 'rb') as f:
                source = f.read().decode('ascii', 'replace').expandtabs().replace('\r', '').replace('\f', '')
            if all(' ' <= c <= '~' or c == '\n' for c in source): # plain ASCII only: a vocabulary of 96
                texts.append(source)
if len(texts) < 100:
    stop(f"{library} has only {len(texts)} readable modules: this Python comes without its library's source")
write_parts(folder, ''.join(t for i, t in enumerate(texts) if i % 10), ''.join(texts[::10]))
