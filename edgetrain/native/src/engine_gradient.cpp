// The gradient that arrives at a norm: what is known of it, and the 4-bit codes of what leaves.
#include <algorithm>
#include <cmath>

#include "edgetrain/engine.hpp"

namespace edgetrain {

void clear(GradientSums& sums) {
  std::fill_n(sums.sum, lanes, 0);
  std::fill_n(sums.signed_sum, lanes, 0);
  for (std::size_t sign = 0; sign < 2; ++sign) {
    std::fill_n(sums.lowest[sign], lanes, INT32_MAX);
    std::fill_n(sums.highest[sign], lanes, INT32_MIN);
  }
}

// dL/dy rises with D, rounding included, so its extremes are those of D.
void set_magnitudes(const GradientSums& sums, const GradientLine& line) {
  std::fill_n(line.range, lanes, 0.0F);
  for (std::size_t sign = 0; sign < 2; ++sign) {
    const float* mean = sign == 1 ? line.upper : line.lower;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      if (sums.lowest[sign][lane] > sums.highest[sign][lane]) {
        continue;
      }
      for (const std::int32_t value : {sums.lowest[sign][lane], sums.highest[sign][lane]}) {
        const float magnitude =
            std::fabs(line.slope[lane] * static_cast<float>(value) - mean[lane]);
        line.range[lane] = std::max(line.range[lane], magnitude);
      }
    }
  }
}

// Turns the gradient of the block's output into 4-bit codes of the gradient of its sums, moves the
// shifts, and returns the value of a code's unit.
float Engine::backward_norm(const Block& block, std::size_t count, float scale,
                            const StepSettings& settings) {
  const Timer timer(profile_, block.layer(), Phase::backward_norm);
  const std::size_t rows = count * block.pixels();
  scale = receive_gradients(block, rows, scale);
  if (block.shortcut.joins_bits()) {
    send_gradient(block, rows, scale, settings);
  }
  const std::size_t tiles = tiles_of(block.norm.channels);
  pool_.run(tiles, [&](std::size_t tile, std::size_t) {
    GradientSums& sums = gradient_sums(block, 0, tile);
    clear(sums);
    kernels_.gradient_sums(gradient_tile(block, rows, tile * lanes), sums);
    finish_sums(block, rows, tile, scale, settings);
  });
  const float unit = set_scales(block, block.span());
  pool_.run(tiles, [&](std::size_t tile, std::size_t) {
    encode(block, gradient_tile(block, rows, tile * lanes), 0, tile, settings.step);
  });
  if (block.shortcut.join == Join::add) {
    sent_[block.layer()] = static_cast<float>(block.shortcut.gain) * unit;
  }
  return unit;
}

// The codes of a tile of dL/dy, of every draw.
void Engine::encode(const Block& block, const GradientTile& tile, std::size_t first_row,
                    std::size_t number, std::uint64_t step) {
  const std::size_t first = number * lanes;
  const CodePlace place = {first_row, first, padded(block.norm.channels)};
  auto* codes =
      arena_.at<std::uint8_t>(block.convolutional ? block.conv.codes : block.linear.codes);
  for (std::size_t draw = 0; draw < program_.draws; ++draw) {
    const Key key = derive(seed_, step, draw << 32 | block.layer(), Purpose::gradient_codes);
    kernels_.gradient_codes(tile, gradient_line(block, first), key, place,
                            codes + draw * draw_bytes(block));
  }
}

// Sets what makes codes of every channel's magnitudes, and the power of two that its codes lack;
// returns the value of their common unit. A scale is the tensor's, halved as often as the span and
// the channel's own largest magnitude allow.
float Engine::set_scales(const Block& block, std::int32_t span) {
  const std::size_t width = padded(block.norm.channels);
  float* range = gradient_line(block, 0).range;
  const float maximum = *std::max_element(range, range + width);
  // Below this the inverse would overflow; no gradient of a network that learns is so small.
  constexpr float smallest = 1e-30F;
  const float inverse = maximum > smallest ? 64.0F / maximum : 0.0F;
  for (std::size_t channel = 0; channel < width; ++channel) {
    std::int32_t halved = 0;
    for (float doubled = 2.0F * range[channel]; halved < span && doubled <= maximum;
         doubled *= 2.0F) {
      ++halved;
    }
    range[channel] = inverse * static_cast<float>(1 << halved);
    if (span > 0) {
      channel_shifts(block)[channel] = static_cast<std::uint8_t>(span - halved);
    }
  }
  return maximum > smallest ? maximum / static_cast<float>(64 << span) : 0.0F;
}

// Moves the shifts of a tile, and leaves the largest magnitude of its channels' dL/dy.
void Engine::finish_sums(const Block& block, std::size_t rows, std::size_t tile, float scale,
                         const StepSettings& settings) {
  const BatchNormRecord& norm = block.norm;
  const std::size_t first = tile * lanes;
  const GradientSums& sums = gradient_sums(block, 0, tile);
  const GradientLine line = gradient_line(block, first);
  const std::size_t channels = std::min(lanes, norm.channels - first);
  const ShiftState state = {arena_.at<float>(norm.shift), arena_.at<float>(norm.moment1),
                            arena_.at<float>(norm.moment2)};
  const auto* inverse = arena_.at<float>(norm.inverse_deviation) + first;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    ChannelLine channel{};
    if (lane < channels) {
      channel = line_of(sums.sum[lane], sums.signed_sum[lane], scale, inverse[lane], rows);
      step_shift(state, first + lane,
                 static_cast<double>(scale) * static_cast<double>(sums.sum[lane]), settings.shift);
    }
    line.slope[lane] = channel.slope;
    line.upper[lane] = channel.upper;
    line.lower[lane] = channel.lower;
  }
  set_magnitudes(sums, line);
}

GradientTile Engine::gradient_tile(const Block& block, std::size_t count, std::size_t first) const {
  const std::size_t rows = program_.examples * block.pixels();
  return tile_of(block, arena_.at<std::int32_t>(block.norm.output_gradient) + first * rows, 0,
                 count, first);
}

GradientTile Engine::tile_of(const Block& block, const std::int32_t* gradient,
                             std::size_t first_row, std::size_t count, std::size_t first) const {
  const std::size_t words = tiles_of(block.norm.channels);
  const std::size_t word = first_row * words + first / lanes;
  return {gradient,
          arena_.at<std::uint32_t>(block.last ? block.norm.sign : block.sign.sign) + word,
          block.last ? nullptr : arena_.at<std::uint32_t>(block.sign.mask) + word,
          words,
          count,
          static_cast<std::size_t>(INT32_MAX) / largest_gradient(block)};
}

// The largest magnitude that the gradient of a block's output can have: the plan's limits on
// layers and shortcuts keep it within 32 bits.
std::size_t Engine::largest_gradient(const Block& block) const {
  if (block.last) {
    return static_cast<std::size_t>(gradient_units);
  }
  return largest_input_gradient(program_.blocks[block.layer() + 1]) +
         block.copies * static_cast<std::size_t>(largest_entry);
}

// The norm's scratch: sums a tile, of every thread where the gradient is made twice, then four
// coefficients a channel.
GradientSums& Engine::gradient_sums(const Block& block, std::size_t thread,
                                    std::size_t tile) const {
  return arena_.at<GradientSums>(
      block.norm.channel_sums)[thread * tiles_of(block.norm.channels) + tile];
}

GradientLine Engine::gradient_line(const Block& block, std::size_t first) const {
  const std::size_t width = padded(block.norm.channels);
  const std::size_t parts = block.remade ? program_.threads : 1;
  auto* lines = reinterpret_cast<float*>(&gradient_sums(block, parts, 0)) + first;
  return {lines, lines + width, lines + 2 * width, lines + 3 * width};
}

// Null where a tensor has one scale.
std::uint8_t* Engine::channel_shifts(const Block& block) const {
  return block.span() > 0 ? arena_.at<std::uint8_t>(block.norm.channel_shifts) : nullptr;
}

// The 4-bit codes of one draw.
std::size_t Engine::draw_bytes(const Block& block) const {
  return program_.examples * block.pixels() * padded(block.norm.channels) / 2;
}

}  // namespace edgetrain
