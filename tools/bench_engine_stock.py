"""What a program without helexa would call: `generate` of transformers, the streams in one batch."""

import time
from pathlib import Path

import torch
import transformers
from bench_engine_wire import Answer, Request, Setup, Timing, Work, serve, shortened
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Clock(BaseStreamer):  # type: ignore[misc]
    """When each token came, in seconds since this was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._times: list[float] = []

    def put(self, value: Tensor) -> None:
        self._times.append(time.perf_counter() - self._began)

    def end(self) -> None:
        """Nothing is held back."""

    @property
    def times(self) -> list[float]:
        return self._times[1:]  # the first are the prompts


class Stock:
    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            Path(setup.path), dtype=DTYPES[setup.dtype]
        )
        self._model.to(setup.device).eval()
        self._model.generation_config = GenerationConfig(pad_token_id=0)  # nothing ends an answer

    @property
    def attention(self) -> str:
        return str(self._model.config._attn_implementation)

    def work(self, request: Request) -> Answer:
        """All streams at once; their prompts are of one length."""
        if request.warm_up:
            request = shortened(request)
        tokens = torch.tensor([s.prompt for s in request.streams], device=self._model.device)
        clock = Clock()
        with torch.inference_mode():
            self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=request.streams[0].max_tokens,
                do_sample=False,
                streamer=clock,
            )
        return Answer([Timing(0.0, clock.times) for _ in request.streams])


def open_stock(setup: Setup) -> tuple[str, Work]:
    transformers.utils.logging.disable_progress_bar()
    stock = Stock(setup)
    about = f"transformers {transformers.__version__}, generate, {setup.dtype}, {stock.attention}"
    return about, stock.work


if __name__ == "__main__":
    serve(open_stock)
