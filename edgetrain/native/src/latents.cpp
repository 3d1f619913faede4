#include "edgetrain/latents.hpp"

#include "edgetrain/kernels.hpp"

namespace edgetrain {

namespace {

// The bits of a word that stand for columns which exist.
std::uint32_t present(std::size_t columns, std::size_t first) {
  const std::size_t valid = columns - first;
  return valid < lanes ? (1U << valid) - 1U : ~0U;
}

}  // namespace

std::size_t state_bytes(Holding holding, std::size_t rows, std::size_t columns) {
  return holding == Holding::signs ? rows * tiles_of(columns) * sizeof(std::uint32_t)
                                   : rows * columns;
}

void initialise(const Latents& latents, std::size_t rows, Key signs) {
  const std::size_t words = tiles_of(latents.columns);
  for (std::size_t i = 0; i < rows * words; ++i) {
    const std::uint32_t drawn = random_bits(signs, static_cast<std::uint32_t>(i));
    latents.signs[i] = drawn & present(latents.columns, i % words * lanes);
  }
}

std::uint32_t sign_word(const Latents& latents, std::size_t row, std::size_t first) {
  const std::size_t word = row * tiles_of(latents.columns) + first / lanes;
  return latents.signs[word] & present(latents.columns, first);
}

}  // namespace edgetrain
