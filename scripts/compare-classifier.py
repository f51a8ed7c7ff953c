#!/usr/bin/env python3
"""Compares `wegeft classify` with transformers on a real encoder.

    python scripts/compare-classifier.py MODEL TEXTS.jsonl [--bin wegeft] [--limit 100]

MODEL is the folder of an encoder in Hugging Face's layout (all-MiniLM-L6-v2, say). transformers gives it a head of two classes
(seed 0); both programs then classify the field `text` of TEXTS.jsonl. Prints the largest difference of the probabilities and exits with
1 if it is above 1e-5. Needs torch and transformers (tried with 2.15 and 5.24).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BOUND = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("--bin", default="wegeft")
    parser.add_argument("--limit", type=int, default=100)
    args = parser.parse_args()
    lines = Path(args.texts).read_text().splitlines()[: args.limit]
    texts = [json.loads(line)["text"] for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(args.model, id2label={0: "no", 1: "yes"}).eval()
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        with torch.no_grad():
            logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
            expected = [torch.softmax(row, 0).tolist() for row in logits]
        test = folder / "test.jsonl"
        test.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        # Nothing is trained: these name the classes.
        classes = folder / "classes.jsonl"
        classes.write_text("".join(json.dumps({"text": texts[0], "label": label}) + "\n" for label in ("no", "yes")))
        command = [args.bin, "classify", "--model", folder / "model", "--method", "none", "--train-file", classes]
        command += ["--valid-file", classes, "--test-file", test]
        subprocess.run([*command, "--out", folder / "run"], check=True, stdout=subprocess.DEVNULL)
        found = next((folder / "run").rglob("predictions/test.jsonl"))
        rows = [json.loads(line) for line in found.read_text().splitlines()]
    scores = [[row["probabilities"]["no"], row["probabilities"]["yes"]] for row in rows]
    if len(scores) != len(expected):
        sys.exit(f"{len(scores)} answers to {len(expected)} texts")
    difference = max(abs(a - b) for ours, theirs in zip(scores, expected) for a, b in zip(ours, theirs))
    print(f"{len(scores)} texts, largest difference of a probability {difference:.1e}")
    return int(difference > BOUND)


if __name__ == "__main__":
    sys.exit(main())
