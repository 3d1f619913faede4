// The handful of floating-point scalars a channel has. Compiled once, for no particular instruction
// set: what is computed here is the same everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct ChannelStatistics {
  double mean;
  double deviation;
};

// y + shift is judged in the units of y: x = (y - mean) / deviation + shift.
struct ChannelThresholds {
  std::int32_t sign;
  std::int32_t low;
  std::int32_t high;
};

// Settings of one update of the shifts, by Adam (Kingma and Ba 2015).
struct ShiftStep {
  double learning_rate;
  double correction1;
  double correction2;
};

struct ShiftState {
  float* shift;
  float* moment1;
  float* moment2;
};

// What the backward expression needs of one channel.
struct ChannelLine {
  float slope;
  float upper;
  float lower;
};

// Sets the levels once all rows are summed.
void set_levels(TileSums& sums, std::size_t rows);
// The sum of |rows y - sum|: values above the mean lie as far from it as those below, so it is
// their excess, doubled.
std::int64_t deviation_of(const TileSums& sums, std::size_t lane, std::size_t rows);
ChannelStatistics statistics_of(std::int64_t sum, std::int64_t deviation, std::size_t count);
ChannelThresholds thresholds_of(const ChannelStatistics& statistics, float shift);
// 1 / deviation; 0 for a channel that does not vary, which then has no gradient.
float inverse_of(double deviation);
float blend(float running, double batch, double momentum);
ChannelLine line_of(std::int64_t sum, std::int64_t signed_sum, float scale, float inverse,
                    std::size_t count);
void step_shift(const ShiftState& state, std::size_t channel, double gradient,
                const ShiftStep& step);

}  // namespace edgetrain
