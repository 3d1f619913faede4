#include "edgetrain/latents.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "edgetrain/kernels.hpp"
#include "half.hpp"

namespace edgetrain {

namespace {

constexpr std::int32_t largest_nibble = 7;
constexpr std::int32_t largest_byte = 127;
constexpr float decay1 = 0.9F;
constexpr float decay2 = 0.999F;
constexpr float share1 = 0.1F;
constexpr float share2 = 0.001F;
// Large enough to bound a step where the square of a small gradient is nothing to a half float.
constexpr float floor_of_root = 1e-4F;

// Columns that exist from `first`, 32 at most.
std::size_t present(const Latents& latents, std::size_t first) {
  return std::min(lanes, latents.columns - first);
}

std::uint32_t low_bits(std::size_t count) { return count < lanes ? (1U << count) - 1U : ~0U; }

std::int32_t sign_of(std::int32_t value) { return (value > 0) - (value < 0); }

std::uint32_t& packed_word(const Latents& latents, std::size_t row, std::size_t first) {
  return static_cast<std::uint32_t*>(
      latents.state)[row * tiles_of(latents.columns) + first / lanes];
}

std::uint8_t* nibbles(const Latents& latents, std::size_t row) {
  return static_cast<std::uint8_t*>(latents.state) + row * ((latents.columns + 1) / 2);
}

std::int32_t nibble(const std::uint8_t* bytes, std::size_t column) {
  const std::int32_t bits = column % 2 == 0 ? bytes[column / 2] & 15 : bytes[column / 2] >> 4;
  return (bits ^ 8) - 8;
}

void set_nibble(std::uint8_t* bytes, std::size_t column, std::int32_t value) {
  const auto bits = static_cast<std::uint32_t>(value) & 15U;
  const std::uint32_t byte = bytes[column / 2];
  bytes[column / 2] =
      static_cast<std::uint8_t>(column % 2 == 0 ? (byte & 0xF0U) | bits : (byte & 15U) | bits << 4);
}

bool below_zero(const Latents& latents, std::size_t row, std::size_t column) {
  const std::size_t place = row * latents.columns + column;
  switch (latents.holding) {
    case Holding::int8:
      return static_cast<const std::int8_t*>(latents.state)[place] < 0;
    case Holding::int4:
      return nibble(nibbles(latents, row), column) < 0;
    default:
      return is_negative(static_cast<const std::uint16_t*>(latents.state)[place]);
  }
}

// The counter of a weight's draws: rows are as long as the kernels' tiles make them.
std::uint32_t counter(const Latents& latents, std::size_t row, std::size_t column) {
  return static_cast<std::uint32_t>(row * padded(latents.columns) + column);
}

// What a latent moves against its gradient: a step, its fraction rounded at random.
std::int32_t descent(const Latents& latents, std::size_t row, std::size_t column,
                     std::int32_t gradient, Key key, std::uint32_t step) {
  const std::uint32_t draw = random_byte(key, counter(latents, row, column));
  return sign_of(gradient) * static_cast<std::int32_t>((step + draw) >> 8);
}

void update_bytes(const Latents& latents, std::size_t row, Range columns,
                  const std::int32_t* gradient, const UpdateStep& step) {
  auto* bytes = static_cast<std::int8_t*>(latents.state) + row * latents.columns;
  for (std::size_t i = 0; i < columns.count; ++i) {
    const std::size_t column = columns.begin + i;
    const std::int32_t value =
        bytes[column] - descent(latents, row, column, gradient[i], step.key, step.latent_step);
    bytes[column] = static_cast<std::int8_t>(std::clamp(value, -largest_byte, largest_byte));
  }
}

void update_nibbles(const Latents& latents, std::size_t row, Range columns,
                    const std::int32_t* gradient, const UpdateStep& step) {
  std::uint8_t* bytes = nibbles(latents, row);
  for (std::size_t i = 0; i < columns.count; ++i) {
    const std::size_t column = columns.begin + i;
    const std::int32_t value = nibble(bytes, column) -
                               descent(latents, row, column, gradient[i], step.key, step.held_step);
    set_nibble(bytes, column, std::clamp(value, -largest_nibble, largest_nibble));
  }
}

// Bop (Helwegen et al. 2019): average += rate (sign(gradient) - average), rounded at random, and a
// sign flips where it agrees with an average beyond the threshold.
void update_averages(const Latents& latents, std::size_t row, Range columns,
                     const std::int32_t* gradient, const UpdateStep& step) {
  auto* average = static_cast<std::int8_t*>(latents.moment1) + row * latents.columns;
  const auto rate = static_cast<std::int32_t>(step.held_step);
  for (std::size_t i = 0; i < columns.count; ++i) {
    const std::size_t column = columns.begin + i;
    const std::uint32_t draw = random_bits(step.key, counter(latents, row, column)) >> 16;
    const std::int32_t way = largest_byte * sign_of(gradient[i]) - average[column];
    const std::int32_t value =
        average[column] + ((rate * way + static_cast<std::int32_t>(draw)) >> 16);
    average[column] = static_cast<std::int8_t>(std::clamp(value, -largest_byte, largest_byte));
    std::uint32_t& signs = packed_word(latents, row, column);
    const std::int32_t sign = ((signs >> (column % lanes)) & 1U) != 0 ? 1 : -1;
    signs ^= static_cast<std::uint32_t>(sign * average[column] > step.threshold)
             << (column % lanes);
  }
}

// Adam (Kingma and Ba 2015) on half floats, the gradient its sign over the root of the fan-in (Wang
// et al. 2021).
void update_halves(const Latents& latents, std::size_t row, Range columns,
                   const std::int32_t* gradient, const UpdateStep& step) {
  const std::size_t begin = row * latents.columns + columns.begin;
  auto* latent = static_cast<std::uint16_t*>(latents.state) + begin;
  auto* moment1 = static_cast<std::uint16_t*>(latents.moment1) + begin;
  auto* moment2 = static_cast<std::uint16_t*>(latents.moment2) + begin;
  const float size = 1.0F / std::sqrt(static_cast<float>(latents.fan_in));
  for (std::size_t lane = 0; lane < columns.count; ++lane) {
    const float slope = static_cast<float>(sign_of(gradient[lane])) * size;
    moment1[lane] = to_half(decay1 * from_half(moment1[lane]) + share1 * slope);
    moment2[lane] = to_half(decay2 * from_half(moment2[lane]) + share2 * (slope * slope));
    const float direction = from_half(moment1[lane]) / step.correction1;
    const float root = std::sqrt(from_half(moment2[lane]) / step.correction2);
    const float moved = from_half(latent[lane]) - step.rate * direction / (root + floor_of_root);
    latent[lane] = to_half(std::min(1.0F, std::max(-1.0F, moved)));
  }
}

void initialise_row(const Latents& latents, std::size_t row, Key levels) {
  // Of as many inputs a variance of one in all.
  const float spread = std::min(1.0F, std::sqrt(3.0F / static_cast<float>(latents.fan_in)));
  for (std::size_t column = 0; column < latents.columns; ++column) {
    const std::uint32_t draw = random_byte(levels, counter(latents, row, column));
    if (latents.holding == Holding::int4) {
      const auto level = static_cast<std::int32_t>((draw * 15U) >> 8) - largest_nibble;
      set_nibble(nibbles(latents, row), column, level);
    } else {
      const auto level = static_cast<std::int32_t>((draw * 255U) >> 8) - 127;
      static_cast<std::uint16_t*>(latents.state)[row * latents.columns + column] =
          to_half(static_cast<float>(level) / 127.0F * spread);
    }
  }
}

}  // namespace

std::size_t state_bytes(Holding holding, std::size_t rows, std::size_t columns) {
  switch (holding) {
    case Holding::signs:
    case Holding::bop:
      return rows * tiles_of(columns) * sizeof(std::uint32_t);
    case Holding::int4:
      return rows * ((columns + 1) / 2);
    case Holding::adam16:
      return rows * columns * sizeof(std::uint16_t);
    default:
      return rows * columns;
  }
}

std::size_t moment1_bytes(Holding holding, std::size_t rows, std::size_t columns) {
  return holding == Holding::bop ? rows * columns : moment2_bytes(holding, rows, columns);
}

std::size_t moment2_bytes(Holding holding, std::size_t rows, std::size_t columns) {
  return holding == Holding::adam16 ? rows * columns * sizeof(std::uint16_t) : 0;
}

void initialise(const Latents& latents, std::size_t rows, Key levels, Key signs) {
  std::memset(latents.state, 0, state_bytes(latents.holding, rows, latents.columns));
  const std::size_t bytes1 = moment1_bytes(latents.holding, rows, latents.columns);
  const std::size_t bytes2 = moment2_bytes(latents.holding, rows, latents.columns);
  if (bytes1 != 0) {
    std::memset(latents.moment1, 0, bytes1);
  }
  if (bytes2 != 0) {
    std::memset(latents.moment2, 0, bytes2);
  }
  const bool packed = latents.holding == Holding::signs || latents.holding == Holding::bop;
  const std::size_t words = tiles_of(latents.columns);
  for (std::size_t row = 0; row < rows; ++row) {
    if (!packed) {
      initialise_row(latents, row, levels);
      continue;
    }
    for (std::size_t word = 0; word < words; ++word) {
      const std::uint32_t drawn =
          random_bits(signs, static_cast<std::uint32_t>(row * words + word));
      packed_word(latents, row, word * lanes) = drawn & low_bits(present(latents, word * lanes));
    }
  }
}

std::uint32_t sign_word(const Latents& latents, std::size_t row, std::size_t first) {
  const std::size_t count = present(latents, first);
  if (latents.holding == Holding::signs || latents.holding == Holding::bop) {
    return packed_word(latents, row, first) & low_bits(count);
  }
  std::uint32_t word = 0;
  for (std::size_t lane = 0; lane < count; ++lane) {
    const bool positive = !below_zero(latents, row, first + lane);
    word |= static_cast<std::uint32_t>(positive) << lane;
  }
  return word;
}

void update_word(const Latents& latents, std::size_t row, std::size_t first,
                 const std::int32_t* gradient, const UpdateStep& step) {
  update_columns(latents, row, {first, present(latents, first)}, gradient, step);
}

void update_columns(const Latents& latents, std::size_t row, Range columns,
                    const std::int32_t* gradient, const UpdateStep& step) {
  switch (latents.holding) {
    case Holding::int8:
      return update_bytes(latents, row, columns, gradient, step);
    case Holding::int4:
      return update_nibbles(latents, row, columns, gradient, step);
    case Holding::bop:
      return update_averages(latents, row, columns, gradient, step);
    case Holding::adam16:
      return update_halves(latents, row, columns, gradient, step);
    default:
      return;
  }
}

}  // namespace edgetrain
