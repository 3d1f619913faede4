// Batch norm and sign on the way forward: what becomes of the sums of a tile of 32 channels.
#include <algorithm>

#include "edgetrain/engine.hpp"

namespace edgetrain {

void Engine::finish_tile(const Block& block, std::size_t rows, std::size_t first,
                         std::int32_t* tile, const double* momentum) {
  const Timer timer(profile_, block.layer(), Phase::forward_norm);
  add_branch(block, rows, first, tile);
  TileSums sums = {};
  if (momentum != nullptr) {
    kernels_.tile_sum(tile, rows, sums);
    set_levels(sums, rows);
    kernels_.tile_above(tile, rows, sums);
  }
  const NormalisedTile normalised = normalise(block, rows, first, sums, momentum);
  write_signs(block, 0, rows, first, tile, normalised.thresholds);
  join_signs(block, rows, first);
  if (block.last) {
    write_logits(block, rows, first, tile, normalised.statistics);
  }
}

Engine::NormalisedTile Engine::normalise(const Block& block, std::size_t rows, std::size_t first,
                                         const TileSums& sums, const double* momentum) {
  const BatchNormRecord& norm = block.norm;
  const std::size_t channels = std::min(lanes, norm.channels - first);
  auto* mean = arena_.at<float>(norm.mean) + first;
  auto* deviation = arena_.at<float>(norm.deviation) + first;
  const auto* shift = arena_.at<float>(norm.shift) + first;
  auto* inverse = arena_.optional<float>(norm.inverse_deviation);
  NormalisedTile result;
  // A lane past the last channel passes no sign and no gradient.
  std::fill_n(result.thresholds.sign, lanes, INT32_MAX);
  std::fill_n(result.thresholds.low, lanes, INT32_MAX);
  std::fill_n(result.thresholds.high, lanes, INT32_MIN);
  for (std::size_t lane = 0; lane < channels; ++lane) {
    ChannelStatistics& statistics = result.statistics[lane];
    if (momentum != nullptr) {
      statistics = statistics_of(sums.sum[lane], deviation_of(sums, lane, rows), rows);
      mean[lane] = blend(mean[lane], statistics.mean, *momentum);
      deviation[lane] = blend(deviation[lane], statistics.deviation, *momentum);
      if (inverse != nullptr) {
        inverse[first + lane] = inverse_of(statistics.deviation);
      }
    } else {
      statistics = {static_cast<double>(mean[lane]), static_cast<double>(deviation[lane])};
    }
    // The last layer has no sign to come, so its retained sign is that of the normalised value.
    const ChannelThresholds t = thresholds_of(statistics, block.last ? 0.0F : shift[lane]);
    result.thresholds.sign[lane] = t.sign;
    result.thresholds.low[lane] = t.low;
    result.thresholds.high[lane] = t.high;
  }
  return result;
}

void Engine::write_signs(const Block& block, std::size_t first_row, std::size_t rows,
                         std::size_t first, const std::int32_t* tile,
                         const TileThresholds& thresholds) {
  const std::size_t words = tiles_of(block.norm.channels);
  const std::size_t word = first_row * words + first / lanes;
  auto* signs = arena_.at<std::uint32_t>(block.last ? block.norm.sign : block.sign.sign) + word;
  auto* mask = block.last ? nullptr : arena_.optional<std::uint32_t>(block.sign.mask);
  kernels_.tile_signs(tile, rows, thresholds, words, signs,
                      mask == nullptr ? nullptr : mask + word);
}

void Engine::write_logits(const Block& block, std::size_t count, std::size_t first,
                          const std::int32_t* tile, const ChannelStatistics* statistics) {
  const BatchNormRecord& norm = block.norm;
  const std::size_t channels = std::min(lanes, norm.channels - first);
  const auto* shift = arena_.at<float>(norm.shift) + first;
  auto* logits = arena_.at<float>(norm.logits) + first;
  for (std::size_t lane = 0; lane < channels; ++lane) {
    const float slope = inverse_of(statistics[lane].deviation);
    const auto offset = static_cast<float>(static_cast<double>(shift[lane]) -
                                           statistics[lane].mean * static_cast<double>(slope));
    for (std::size_t row = 0; row < count; ++row) {
      logits[row * norm.channels + lane] =
          slope * static_cast<float>(tile[row * lanes + lane]) + offset;
    }
  }
}

}  // namespace edgetrain
