// Weights of a bundle of groups as the products of its channels with its outputs need them: zero
// from group to group. Compiled once, for size: a step reads and moves each weight but a few times.
#include <algorithm>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

namespace {

// What one output sees of the 32 channels from some first: columns of its rows of weights, and
// where the first of them lies among the channels.
struct Seen {
  Range columns;
  std::size_t lane;
};

Seen seen_by(const ConvWeights& weights, std::size_t output, std::size_t first) {
  const std::size_t columns = weights.held.columns;
  const std::size_t group = output / (weights.shape.outputs / weights.groups);
  const std::size_t begin = std::max(first, group * columns);
  const std::size_t end = std::min(first + lanes, (group + 1) * columns);
  if (begin >= end) {
    return {};
  }
  return {{begin - group * columns, end - begin}, begin - first};
}

// The signs of a row of weights for 32 columns.
std::uint32_t signs_of(const ConvWeights& weights, std::size_t row, std::size_t first) {
  if (weights.mode != WeightMode::fsb) {
    return sign_word(weights.held, row, first);
  }
  const std::size_t word = row * tiles_of(weights.held.columns) + first / lanes;
  return random_bits(weights.signs, static_cast<std::uint32_t>(word));
}

// Calls visit(i, sign, 1 or -1, of the i-th of the columns).
template <class Visit>
void for_each_sign(const ConvWeights& weights, std::size_t row, Range columns, const Visit& visit) {
  std::uint32_t word = 0;
  for (std::size_t i = 0; i < columns.count; ++i) {
    const std::size_t column = columns.begin + i;
    if (i == 0 || column % lanes == 0) {
      word = signs_of(weights, row, column / lanes * lanes);
    }
    visit(i, static_cast<int>((word >> column % lanes) & 1U) * 2 - 1);
  }
}

// The gradient of a scale is the sum of its taps' gradients, each times its fixed sign.
void update_scales(const ConvWeights& weights, std::size_t output, Range columns,
                   const std::int32_t* gradient, std::size_t tap_stride, const UpdateStep& step) {
  std::int64_t sums[lanes] = {};
  for (std::size_t tap = 0; tap < weights.shape.taps(); ++tap, gradient += tap_stride) {
    for_each_sign(weights, weights.row(output, tap), columns,
                  [&](std::size_t i, int sign) { sums[i] += sign * gradient[i]; });
  }
  const std::size_t row = weights.first_output + output;
  for (std::size_t i = 0; i < columns.count; ++i) {
    const std::size_t column = columns.begin + i;
    const std::size_t index = row * padded(weights.held.columns) + column;
    update_scale(weights.scale[row * weights.held.columns + column], sums[i],
                 static_cast<std::uint32_t>(index), step);
  }
}

}  // namespace

void expand_grouped(const ConvWeights& weights, std::size_t output, std::size_t tap,
                    std::size_t first, std::size_t plane, std::int8_t* values) {
  std::memset(values, 0, lanes);
  const Seen seen = seen_by(weights, output, first);
  const std::size_t row = weights.row(output, tap);
  const std::size_t columns = weights.held.columns;
  values += seen.lane;
  if (weights.mode == WeightMode::int8) {
    std::memcpy(values, weights.latent + row * columns + seen.columns.begin, seen.columns.count);
    return;
  }
  const bool scaled = weights.mode == WeightMode::fsb;
  const std::uint8_t* scales = weights.scale;
  if (scaled) {
    scales += (weights.first_output + output) * columns + seen.columns.begin;
  }
  for_each_sign(weights, row, seen.columns, [&](std::size_t i, int sign) {
    const int part = !scaled ? 1 : plane == 0 ? scales[i] >> 1 : scales[i] & 1;
    values[i] = static_cast<std::int8_t>(sign * part);
  });
}

void update_grouped(const ConvWeights& weights, Range outputs, std::size_t first,
                    const std::int32_t* gradient, const UpdateStep& step) {
  const std::size_t tap_stride = padded(outputs.count) * lanes;
  for (std::size_t i = 0; i < outputs.count; ++i) {
    const std::size_t output = outputs.begin + i;
    const Seen seen = seen_by(weights, output, first);
    const std::int32_t* demand = gradient + i * lanes + seen.lane;
    if (weights.mode == WeightMode::fsb) {
      update_scales(weights, output, seen.columns, demand, tap_stride, step);
      continue;
    }
    for (std::size_t tap = 0; tap < weights.shape.taps(); ++tap, demand += tap_stride) {
      update_columns(weights.held, weights.row(output, tap), seen.columns, demand, step);
    }
  }
}

}  // namespace edgetrain
