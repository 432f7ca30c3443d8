"""The model's tokenizer.json, read by the tokenizers library alone: no tokenizer class, no template
and no special-token setting of the model takes effect."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from .failure import Failure


class Text:
    """Text to ids and back."""

    def __init__(self, file: Path, rows: int, max_prompt: int) -> None:
        self.max_prompt, self.rows = max_prompt, rows
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as err:
            raise Failure("E_TOKENIZER", f"tokenizer.json: {err}") from err
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        most = max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if most >= rows:
            raise Failure("E_VOCAB", f"the tokenizer has id {most}, the model embeds {rows} ids")

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and for each the character of the text where it ends."""
        try:
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
        except Exception as err:
            raise Failure("E_TOKENIZER", f"encoding a text: {err}") from err
        if any(token >= self.rows for token in encoding.ids):
            raise Failure("E_VOCAB", f"the tokenizer yields an id that the model does not embed ({self.rows} ids)")
        return encoding.ids, [end for _, end in encoding.offsets]

    def prompt(self, text: str) -> list[int]:
        """The end of the prompt, as many tokens as fit. The text is complete: nothing is added."""
        ids, _ = self.encode(text)
        if not ids:
            raise Failure("E_TOKENIZER", "the tokenizer turns a prompt into no token")
        return ids[-self.max_prompt :]

    def decode(self, ids: list[int]) -> str:
        """The text of a reply, special tokens left out."""
        try:
            return self.tokenizer.decode(ids, skip_special_tokens=True)
        except Exception as err:
            raise Failure("E_TOKENIZER", f"decoding a reply: {err}") from err
