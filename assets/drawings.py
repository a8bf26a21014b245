"""
Draws model.svg, the network as in model.py, and flow.svg, the way of the data through the scripts; needs matplotlib:
    python assets/drawings.py [FOLDER]
Text on boxes of their own is legible on any page, all else is of a grey that is seen on white and on black. The same versions
draw the same bytes. Numbers of parameters are those of model.py.
"""
import os
import sys

try:
    import matplotlib
except ImportError:
    sys.exit("drawings.py: drawing needs the package matplotlib: pip install matplotlib")
matplotlib.use('svg')
import matplotlib.pyplot as plt # noqa: E402
import torch # noqa: E402
from matplotlib.patches import Circle, FancyBboxPatch # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from model import GPT, GPTConfig # noqa: E402

GREY, BLUE, PURPLE, GREEN, SLATE = '#7a7a7a', '#2f6fad', '#7a4fa3', '#2f7d4f', '#667080' # grey has a contrast of 4.3 to white and 4.4 to #0d1117, white one of 5 to the rest
plt.rcParams.update({'svg.hashsalt': 'drawings', 'svg.fonttype': 'none', 'font.size': 9})

class Page:
    """A page of so many units, 100 to the inch, y downwards."""
    def __init__(self, width, height):
        self.figure = plt.figure(figsize=(width / 100, height / 100))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self.axes.axis('off')

    def text(self, x, y, text, color=GREY, ha='center', **more):
        self.axes.text(x, y, text, color=color, ha=ha, va='center', **more)

    def frame(self, x, y, w, h, fill='none', edge='none', **more):
        """A rounded rectangle around its centre."""
        self.axes.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle='round,pad=0,rounding_size=6', facecolor=fill, edgecolor=edge, **more))

    def box(self, x, y, w, name, more='', fill=BLUE, edge='none', color='white', h=36):
        """A name, and under it what else there is to say."""
        self.frame(x, y, w, h, fill, edge)
        self.text(x, y - 7 * bool(more), name, color, weight='bold')
        if more:
            self.text(x, y + 8, more, color, size=8)

    def line(self, *points, head=True, **more):
        """A line through points, with an arrow's head at the last."""
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=GREY, lw=1.2, solid_joinstyle='round', **more)
        if head:
            self.axes.annotate('', points[-1], points[-2], arrowprops=dict(arrowstyle='-|>', color=GREY, lw=1.2, shrinkA=0, shrinkB=0, mutation_scale=10))

    def plus(self, x, y):
        self.axes.add_patch(Circle((x, y), 9, facecolor='none', edgecolor=GREY, lw=1.2))
        self.text(x, y, '+', size=12)

    def save(self, path):
        self.figure.savefig(path, metadata={'Date': None}, transparent=True)
        plt.close(self.figure)

def draw_model(path):
    config = GPTConfig(vocab_size=50257) # OpenAI's
    with torch.device('meta'):
        model = GPT(config)
    count = lambda module: f"{sum(p.numel() for p in model.get_submodule('transformer.' + module).parameters()):,}"
    page = Page(900, 600)

    # the trunk
    x, wte, wpe = 200, 110, 290
    page.text(x, 24, 'idx (B, T)')
    for side, name, more in ((wte, 'wte', 'V × C'), (wpe, 'wpe', 'block_size × C')):
        page.line((x, 34), (x, 50), (side, 50), (side, 70))
        page.box(side, 90, 150, f'transformer.{name}', more, PURPLE)
        page.line((side, 108), (side, 150), (x + (9 if side > x else -9), 150), head=False)
        page.text(side + (8 if side > x else -8), 122, count(name), ha='left' if side > x else 'right', size=8)
    page.plus(x, 150)
    page.line((x, 159), (x, 190))
    page.text(x + 10, 173, '(B, T, C)', ha='left', size=8)
    page.box(x, 206, 150, 'transformer.drop', fill=SLATE, h=30)
    page.line((x, 221), (x, 252))
    for k in (10, 5, 0): # a stack
        page.box(x + k, 290 - k, 190, 'transformer.h' if k == 0 else '', 'n_layer Blocks' if k == 0 else '', edge='#9dbfe0', h=56)
    page.text(x + 112, 290, count('h'), ha='left', size=8)
    page.line((x, 318), (x, 350))
    page.box(x, 366, 150, 'transformer.ln_f', fill=SLATE, h=30)
    page.text(x + 82, 366, count('ln_f'), ha='left', size=8)
    page.line((x, 381), (x, 422))
    page.text(x + 10, 400, '(B, T, C)', ha='left', size=8)
    page.box(x, 440, 150, 'lm_head', 'C → V', PURPLE)
    page.line((wte - 75, 90), (14, 90), (14, 440), (x - 75, 440), head=False, ls='--')
    page.text(22, 428, 'one matrix', ha='left', size=8)
    page.line((x, 458), (x, 494))
    page.text(x, 505, 'logits (B, T, V)')
    page.text(x, 560, f"GPT-2 124M: V {config.vocab_size}, block_size {config.block_size}, C {config.n_embd}, n_layer {config.n_layer}, nh {config.n_head}", size=8)
    page.text(x, 576, f"{model.get_num_params(False):,} parameters; beside each part its own", size=8)

    # one of its blocks
    page.frame(655, 300, 470, 580, edge=GREY, ls=':')
    page.text(875, 30, 'Block', ha='right', weight='bold')
    page.text(875, 47, count('h.0'), ha='right', size=8)
    x, at = 465, 650 # of the residual stream, of what adds to it
    page.text(x, 30, 'x (B, T, C)')
    page.line((x, 40), (x, 285 - 9))
    page.line((x, 285 + 9), (x, 530 - 9))
    page.line((x, 530 + 9), (x, 562))
    page.text(x, 573, '(B, T, C)')
    for top, parts in ((75, [('ln_1', '', SLATE), ('attn.c_attn', 'C → 3·C: q, k, v, each (B, nh, T, hs)', BLUE),
                             ('scaled_dot_product_attention', 'softmax(q·k / √hs)·v, causal', GREEN), ('attn.c_proj', 'C → C, dropout', BLUE)]),
                       (320, [('ln_2', '', SLATE), ('mlp.c_fc', 'C → 4·C', BLUE), ('mlp.gelu', 'GELU', GREEN), ('mlp.c_proj', '4·C → C, dropout', BLUE)])):
        page.line((x, top), (at - 130, top))
        for k, (name, more, fill) in enumerate(parts):
            y, h = top + 54 * k, 36 if more else 28
            page.box(at, y, 260, name, more, fill, h=h)
            if fill != GREEN:
                page.text(at + 138, y, count(f'h.0.{name}'), ha='left', size=8)
            page.line((at, y + h / 2), *([(at, y + 36)] if k < 3 else [(at, top + 210), (x + 9, top + 210)]))
        page.plus(x, top + 210)
    page.save(path)

def draw_flow(path):
    page = Page(900, 400)
    script = lambda x, y, name, more='': page.box(x, y, 130, name, more)
    def files(x, y, *names):
        page.frame(x, y, 110, 16 * len(names) + 16, edge=GREY)
        for k, name in enumerate(names):
            page.text(x, y + 16 * (k - (len(names) - 1) / 2), name)

    page.text(28, 190, 'text')
    page.line((46, 190), (64, 190))
    page.box(136, 190, 144, 'data/*/prepare.py', 'tokenizes')
    page.line((208, 190), (225, 190))
    files(280, 190, 'train.bin', 'val.bin', 'meta.pkl')
    page.text(280, 148, 'data/*/', size=8)
    page.line((335, 190), (365, 190))
    script(430, 190, 'train.py', 'trains, evaluates')
    page.line((495, 190), (525, 190))
    files(580, 190, 'metrics.jsonl', 'ckpt.pt')
    page.text(580, 156, 'out_dir/', size=8)

    files(330, 40, 'config/*.py')
    files(530, 40, '--key=value')
    script(430, 110, 'configurator.py', 'settings of all scripts')
    page.line((330, 56), (330, 74), (395, 74), (395, 92))
    page.line((530, 56), (530, 74), (465, 74), (465, 92))
    page.line((430, 128), (430, 172))

    page.line((635, 182), (660, 182), (660, 110), (685, 110))
    script(750, 110, 'assets/plot.py', 'draws')
    page.line((815, 110), (840, 110))
    page.text(868, 110, 'curves')
    page.line((635, 198), (660, 198), (660, 270), (685, 270))
    script(750, 270, 'sample.py', 'writes')
    page.line((815, 270), (840, 270))
    page.text(860, 270, 'text')
    page.line((280, 222), (280, 252))
    script(280, 270, 'bench.py', 'times')

    page.box(515, 360, 600, 'model.py', 'the network, weights in and out, optimizer, text', PURPLE)
    for x, end in ((280, 288), (430, 208), (750, 288)):
        page.line((x, 342), (x, end))
    page.save(path)

if __name__ == '__main__':
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE
    draw_model(os.path.join(folder, 'model.svg'))
    draw_flow(os.path.join(folder, 'flow.svg'))
