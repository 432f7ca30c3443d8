"""Trains the sample model. See README.md beside this file.

    cargo run --example ladder -- corpus 4800 > corpus.jsonl
    python train.py corpus.jsonl     # writes model/
    python train.py check            # transformers' own greedy replies against golden.jsonl
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
SEED = 20261122
BATCH = 16
SORTED = 8  # batches whose conversations are sorted by length, so that little is padded
PEAK_RATE = 5e-3
WARM_UP = 20
END = 2
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.05,
    "bos_token_id": 0,
    "eos_token_id": END,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}


def train_tokenizer(corpus):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [m["content"] for c in corpus for m in c["messages"]]
    tokenizer.train_from_iterator(texts + [c["system_prompt"] for c in corpus], trainer)
    return tokenizer


def tokens(tokenizer, conversation):
    """Ids of the whole conversation; labels only for what the assistant says, end included."""
    turns = [("system", conversation["system_prompt"])]
    turns += [(m["role"], m["content"]) for m in conversation["messages"]]
    ids, labels = [], []
    for role, content in turns:
        for text, counts in [
            (f"<|im_start|>{role}\n", False),
            (f"{content}<|im_end|>", role == "assistant"),
            ("\n", False),
        ]:
            part = tokenizer.encode(text, add_special_tokens=False).ids
            ids += part
            labels += part if counts else [-100] * len(part)
    return ids, labels


def batches(tokenizer, corpus):
    rows = [tokens(tokenizer, conversation) for conversation in corpus]
    for start in range(0, len(rows), SORTED * BATCH):
        stretch = sorted(rows[start : start + SORTED * BATCH], key=lambda row: len(row[0]))
        for first in range(0, len(stretch), BATCH):
            batch = stretch[first : first + BATCH]
            width = max(len(ids) for ids, _ in batch)
            ids = [ids + [0] * (width - len(ids)) for ids, _ in batch]
            labels = [labels + [-100] * (width - len(labels)) for _, labels in batch]
            yield torch.tensor(ids), torch.tensor(labels)


def rate(step, steps):
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / (steps - WARM_UP)
    return PEAK_RATE * (0.05 + 0.475 * (1 + math.cos(math.pi * done)))


def train(corpus_file):
    corpus = [json.loads(line) for line in open(corpus_file, encoding="utf-8")]
    steps = len(corpus) // BATCH
    folder = HERE / "model"
    folder.mkdir(exist_ok=True)
    tokenizer = train_tokenizer(corpus)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    stop = {"bos_token_id": 0, "eos_token_id": END}
    (folder / "generation_config.json").write_text(json.dumps(stop, indent=2) + "\n")

    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).float().train()
    print(sum(p.numel() for p in model.parameters()), "parameters,", steps, "steps")
    adam = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    started = time.monotonic()
    for step, (ids, labels) in enumerate(batches(tokenizer, corpus)):
        for group in adam.param_groups:
            group["lr"] = rate(step, steps)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        if step % 20 == 0 or step + 1 == steps:
            print(f"step {step:3}  loss {loss.item():.4f}  {time.monotonic() - started:.0f} s", flush=True)
    stored = {k: v.bfloat16() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def check():
    tokenizer = Tokenizer.from_file(str(HERE / "model/tokenizer.json"))
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).float().eval()
    stored = {k: v.float() for k, v in load_file(HERE / "model/model.safetensors").items()}
    missing, unexpected = model.load_state_dict(stored, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected, (missing, unexpected)
    model.tie_weights()
    lines = [json.loads(line) for line in open(HERE / "golden.jsonl", encoding="utf-8")]
    same = 0
    for line in lines:
        ids = tokenizer.encode(line["prompt"], add_special_tokens=False).ids
        start = len(ids)
        while len(ids) - start < 120:
            best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if best == END:
                break
            ids.append(best)
        same += tokenizer.decode(ids[start:]) == line["reply"]
    print(f"{same} of {len(lines)} replies are the same")
    sys.exit(same != len(lines))


if __name__ == "__main__":
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    check() if sys.argv[1] == "check" else train(sys.argv[1])
