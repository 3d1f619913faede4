"""The native training engine: see edgetrain/native/src/bindings.cpp."""

from typing_extensions import Buffer

class Engine:
    """A plan in its arena. Raises ValueError for a bad plan, MemoryError without the memory."""

    def __init__(self, program: bytes, seed: int, isa: str) -> None: ...
    def train(
        self,
        features: Buffer,
        is_signed: bool,
        labels: Buffer,
        indices: Buffer,
        step: int,
        latent_step: int,
        scale_step: int,
        statistics_momentum: float,
        shift_learning_rate: float,
        correction1: float,
        correction2: float,
        held_step: int,
        threshold: int,
    ) -> tuple[float, int]: ...
    def evaluate(
        self, features: Buffer, is_signed: bool, labels: Buffer, indices: Buffer
    ) -> tuple[float, int]: ...
    def profile(
        self, features: Buffer, is_signed: bool, labels: Buffer, indices: Buffer
    ) -> bytes: ...
    def read(self, offset: int, bytes: int) -> bytes: ...
    def write(self, offset: int, data: Buffer) -> None: ...
    @property
    def isa(self) -> str: ...

def limits(isa: str, threads: int) -> tuple[float, float]: ...
def luq4_encode(before: Buffer, after: Buffer, key: int) -> tuple[bytes, int]: ...
def shuffled(count: int, seed: int, epoch: int) -> bytes: ...
def random_words(seed: int, step: int, layer: int, purpose: int, count: int) -> bytes: ...
def supported_isas() -> list[str]: ...
