"""Times PyTorch and Hugging Face PEFT on the workloads of `--bin bench`, in turn with it (A B A B), and prints ratios.
`wegeft bench --compare PYTHON` runs this script.

    pip install -r benches/peers/requirements.txt
    python benches/peers/pytorch.py --bench target/release/bench --workload vit-s-step --method lora,wegeft
    python benches/peers/pytorch.py --workload llama-100m-step,llama-100m-decode --method lora,wegeft
    python benches/peers/pytorch.py --workload lm-decode --method frozen --model FOLDER --dtype bf16
    python benches/peers/pytorch.py --device cuda --tf32 --warm-up 20 --workload vit-b-step --batch 32

Same shapes, types, threads, optimizer and sites (attn.proj; of language models the q, k, v, up and down projections) on
both sides. WeGeFT in PyTorch is written here in its input form, the one that PyTorch runs fastest; `frozen` trains the
head of a vision model alone, `full` everything. Language models are transformers' own. Each measurement is a process of
its own, so that its peak memory is its own.
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
# Adapted layers of language models.
SITES = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", action="append", help="the bench program, and the words that it is called with")
    parser.add_argument("--workload", default="vit-s-forward,vit-s-step")
    parser.add_argument("--method", default="frozen,lora,wegeft")
    parser.add_argument("--batch", type=int, help="8 images, or 4 texts for -step and otherwise 1")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a text")
    parser.add_argument("--model", help="folder of a language model, for the workloads lm-...")
    parser.add_argument("--dtype", default="f32", help="f32, bf16 or f16 for the weights of language models")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--device", default="flex", help="of the bench program; PyTorch takes cuda for any GPU")
    parser.add_argument("--tf32", action="store_true", help="PyTorch multiplies f32 as TF32 on GPUs, as Burn does on cuda")
    parser.add_argument("--warm-up", type=int, default=2, help="passes that are not timed; 20 on a GPU")
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


def language_model(shape, folder, dtype):
    """Llama's kind of model with 100 million random values, or the one of a folder."""
    import torch
    import transformers

    types = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    if shape == "lm":
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=types[dtype])
        return model.to(torch.get_default_device())  # of the surrounding `with`
    config = transformers.LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).to(types[dtype])


def edited(layer, phi, psi):
    """A layer that reads its input edited by a generator."""
    from torch import nn

    class Edited(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.phi, self.psi = layer, phi, psi

        def forward(self, x):
            return self.layer(x + (x @ self.psi.T) @ self.phi.T)

    return Edited()


def adapt_language_model(model, method, rank):
    """The model with what `method` trains: LoRA on every site, one pair (phi, psi) a kind of site for WeGeFT."""
    import torch
    from torch import nn

    if method == "full":
        return model
    for parameter in model.parameters():
        parameter.requires_grad = False
    if method == "lora":
        import peft

        config = peft.LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=SITES)
        return peft.get_peft_model(model, config)
    if method == "wegeft":
        pairs = {}
        for module in list(model.modules()):
            for name in SITES:
                layer = getattr(module, name, None)
                if isinstance(layer, nn.Linear):
                    if name not in pairs:
                        width = layer.in_features
                        phi = torch.empty(width, rank, dtype=layer.weight.dtype).uniform_(-(width**-0.5), width**-0.5)
                        psi = torch.zeros(rank, width, dtype=layer.weight.dtype)
                        pairs[name] = nn.Parameter(phi), nn.Parameter(psi)
                    setattr(module, name, edited(layer, *pairs[name]))
    return model


def language_pass(args):
    """One pass of a language workload, and the tokens that it computes."""
    import torch

    shape, kind = args.workload.rsplit("-", 1)
    batch = args.batch or (4 if kind == "step" else 1)
    model = language_model(shape, args.model, args.dtype)
    model = adapt_language_model(model, args.method, args.r)
    vocab = model.config.vocab_size
    ids = torch.randint(vocab, (batch, args.tokens))
    if kind == "step":
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)

        def once():
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()

        return once, batch, batch * args.tokens
    model.eval()

    def read(tokens, cache):
        with torch.inference_mode():
            return model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)

    if kind == "prefill":
        return lambda: read(ids, None), batch, batch * args.tokens
    cache = read(ids, None).past_key_values
    next_token = torch.randint(vocab, (batch, 1))
    return lambda: read(next_token, cache), batch, batch


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
        width = model.head.in_features
        bound = width**-0.5
        phi = nn.Parameter(torch.empty(width, rank).uniform_(-bound, bound))
        psi = nn.Parameter(torch.zeros(rank, width))
        for block in model.blocks:
            block.attn.proj = edited(block.attn.proj, phi, psi)
    for parameter in model.head.parameters():
        parameter.requires_grad = True
    return model


def vision_pass(args):
    """One pass of a vision workload, and the tokens that it computes."""
    import torch
    from torch.nn import functional as F

    _, size, kind = args.workload.split("-")
    batch = args.batch or 8
    model = adapt(vit(size), args.method, args.r)
    pixels = torch.randn(batch, 3, 224, 224)
    labels = torch.arange(batch) % CLASSES
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

    return once, batch, batch * 197


def measure(args):
    import resource

    import torch

    backend, _, index = args.device.partition(":")
    gpu = backend not in ("flex", "ndarray")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    vision = args.workload.startswith("vit-")
    # Not the default for good: that would slow down every later call.
    with torch.device(f"cuda:{index or 0}" if gpu else "cpu"):
        queued, batch, computed = vision_pass(args) if vision else language_pass(args)

    def once():
        queued()
        if gpu:
            torch.cuda.synchronize(int(index or 0))

    for _ in range(args.warm_up):
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
        "device": f"pytorch {torch.__version__}{' cuda' if gpu else ''}{' tf32' if args.tf32 else ''}",
        "dtype": args.dtype,
        "threads": args.threads,
        "batch": batch,
        "tokens": 197 if vision else args.tokens,
        "passes": len(passes),
        "median_seconds": statistics.median(passes),
        "min_seconds": min(passes),
        "tokens_per_second": computed / min(passes),
        "processor_seconds": processor / len(passes),
        "cores_busy": processor / wall,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "device_mb": torch.cuda.max_memory_reserved(int(index or 0)) / 1e6 if gpu else None,
    }
    print(json.dumps(line))


def child(command, args, workload, method):
    flags = {"workload": workload, "method": method, "batch": args.batch, "r": args.r, "tokens": args.tokens}
    flags |= {"model": args.model, "dtype": args.dtype, "threads": args.threads, "seconds": args.seconds}
    flags |= {"device": args.device, "warm-up": args.warm_up}
    command = command + [f"--{name}={value}" for name, value in flags.items() if value is not None]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(run.stdout)


def main():
    args = arguments()
    if args.child:
        return measure(args)
    bench = args.bench or ["target/release/bench"]
    if not os.path.exists(bench[0]):
        sys.exit(f"--bench {bench[0]}: not there; cargo build --release --bin bench makes it")
    peer = [sys.executable, os.path.abspath(__file__), "--child"]
    results = {}
    for _ in range(args.rounds):
        for workload in args.workload.split(","):
            for method in args.method.split(","):
                for side, command in (("ours", bench + ["--child"]), ("pytorch", peer + ["--tf32"] * args.tf32)):
                    line = child(command, args, workload, method)
                    print(json.dumps(line), flush=True)
                    results.setdefault((workload, method), {"ours": [], "pytorch": []})[side].append(line)
    columns = "workload method ours pytorch ratio bound/ours ours pytorch ratio"
    head = "{:<18} {:<8} {:>8} {:>8} {:>6} {:>10} {:>8} {:>8} {:>6}"
    print(f"\n{'fastest pass, seconds':>51}{'peak memory, MB':>38}")
    print(head.format(*columns.split()))
    for (workload, method), sides in results.items():
        time_of = {side: min(line["min_seconds"] for line in lines) for side, lines in sides.items()}
        # A GPU's own memory, if both know it.
        known = all(line["device_mb"] for lines in sides.values() for line in lines)
        key = "device_mb" if known else "peak_rss_mb"
        memory = {side: max(line[key] for line in lines) for side, lines in sides.items()}
        # A token's time is that of reading the weights, any other pass's that of its products.
        bound = min(line["memory_seconds"] or line["gemm_seconds"] for line in sides["ours"])
        print(
            head.format(
                workload,
                method,
                f"{time_of['ours']:.4f}",
                f"{time_of['pytorch']:.4f}",
                f"{time_of['ours'] / time_of['pytorch']:.2f}",
                f"{bound / time_of['ours']:.2f}",
                f"{memory['ours']:.0f}",
                f"{memory['pytorch']:.0f}",
                f"{memory['ours'] / memory['pytorch']:.2f}",
            )
        )


if __name__ == "__main__":
    main()
