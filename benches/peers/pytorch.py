"""Times PyTorch and Hugging Face PEFT on the workloads of `--bin bench`, in turn with it (A B A B), and prints ratios.

    pip install -r benches/peers/requirements.txt
    python benches/peers/pytorch.py --bench target/release/bench --workload vit-s-step --method lora,wegeft

Same shapes, f32, threads, optimizer and sites (attn.proj) on both sides. WeGeFT in PyTorch is written here in its input
form, the one that PyTorch runs fastest; `frozen` trains the head alone, `full` everything. Each measurement is a process
of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SIZES = {"tiny": (192, 3), "s": (384, 6), "b": (768, 12)}
CLASSES = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="target/release/bench", help="the bench program")
    parser.add_argument("--workload", default="vit-s-forward,vit-s-step")
    parser.add_argument("--method", default="frozen,lora,wegeft")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def vit(size):
    """A vision transformer with timm's module names, attention by scaled_dot_product_attention."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads = SIZES[size]

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)

        def forward(self, x):
            batch, tokens, _ = x.shape
            qkv = self.qkv(x).reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
            return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(width, eps=1e-6)
            self.attn = Attention()
            self.norm2 = nn.LayerNorm(width, eps=1e-6)
            self.fc1 = nn.Linear(width, 4 * width)
            self.fc2 = nn.Linear(4 * width, width)

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Conv2d(3, width, 16, 16)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 197, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(12)))
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.head = nn.Linear(width, CLASSES)

        def forward(self, pixels):
            x = self.proj(pixels).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
            return self.head(self.norm(self.blocks(x)[:, 0]))

    return Vit()


def adapt(model, method, rank):
    """The model with what `method` trains."""
    import torch
    from torch import nn

    if method == "full":
        return model
    for parameter in model.parameters():
        parameter.requires_grad = False
    if method == "lora":
        import peft

        config = peft.LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=["attn.proj"], modules_to_save=["head"]
        )
        return peft.get_peft_model(model, config)
    if method == "wegeft":

        class Edited(nn.Module):
            def __init__(self, layer, phi, psi):
                super().__init__()
                self.layer, self.phi, self.psi = layer, phi, psi

            def forward(self, x):
                return self.layer(x + (x @ self.psi.T) @ self.phi.T)

        width = model.head.in_features
        bound = width**-0.5
        phi = nn.Parameter(torch.empty(width, rank).uniform_(-bound, bound))
        psi = nn.Parameter(torch.zeros(rank, width))
        for block in model.blocks:
            block.attn.proj = Edited(block.attn.proj, phi, psi)
    for parameter in model.head.parameters():
        parameter.requires_grad = True
    return model


def measure(args):
    import resource

    import torch
    from torch.nn import functional as F

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    _, size, kind = args.workload.split("-")
    model = adapt(vit(size), args.method, args.r)
    pixels = torch.randn(args.batch, 3, 224, 224)
    labels = torch.arange(args.batch) % CLASSES
    if kind == "step":
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)

        def once():
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), labels).backward()
            optimizer.step()

    else:
        model.eval()

        def once():
            with torch.inference_mode():
                model(pixels)

    for _ in range(2):
        once()
    passes = []
    start, processor = time.perf_counter(), time.process_time()
    while len(passes) < 3 or time.perf_counter() - start < args.seconds:
        before = time.perf_counter()
        once()
        passes.append(time.perf_counter() - before)
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    line = {
        "workload": args.workload,
        "method": args.method,
        "device": f"pytorch {torch.__version__}",
        "threads": args.threads,
        "batch": args.batch,
        "tokens": 197,
        "passes": len(passes),
        "median_seconds": statistics.median(passes),
        "min_seconds": min(passes),
        "processor_seconds": processor / len(passes),
        "cores_busy": processor / wall,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(line))


def child(command, args, workload, method):
    flags = {"workload": workload, "method": method, "batch": args.batch, "r": args.r}
    flags |= {"threads": args.threads, "seconds": args.seconds}
    command = command + [f"--{name}={value}" for name, value in flags.items()]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(run.stdout)


def main():
    args = arguments()
    if args.child:
        return measure(args)
    if not os.path.exists(args.bench):
        sys.exit(f"--bench {args.bench}: not there; cargo build --release --bin bench makes it")
    peer = [sys.executable, os.path.abspath(__file__), "--child"]
    results = {}
    for _ in range(args.rounds):
        for workload in args.workload.split(","):
            for method in args.method.split(","):
                for side, command in (("ours", [args.bench]), ("pytorch", peer)):
                    line = child(command, args, workload, method)
                    print(json.dumps(line), flush=True)
                    results.setdefault((workload, method), {"ours": [], "pytorch": []})[side].append(line)
    columns = "workload method ours pytorch ratio floor/ours ours pytorch ratio"
    head = "{:<14} {:<8} {:>8} {:>8} {:>6} {:>10} {:>8} {:>8} {:>6}"
    print(f"\n{'fastest pass, seconds':>47}{'peak RSS, MB':>38}")
    print(head.format(*columns.split()))
    for (workload, method), sides in results.items():
        time_of = {side: min(line["min_seconds"] for line in lines) for side, lines in sides.items()}
        memory = {side: max(line["peak_rss_mb"] for line in lines) for side, lines in sides.items()}
        floor = min(line["gemm_seconds"] for line in sides["ours"])
        print(
            head.format(
                workload,
                method,
                f"{time_of['ours']:.3f}",
                f"{time_of['pytorch']:.3f}",
                f"{time_of['ours'] / time_of['pytorch']:.2f}",
                f"{floor / time_of['ours']:.2f}",
                f"{memory['ours']:.0f}",
                f"{memory['pytorch']:.0f}",
                f"{memory['ours'] / memory['pytorch']:.2f}",
            )
        )


if __name__ == "__main__":
    main()
