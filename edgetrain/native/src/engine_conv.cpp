// The convolutional half of the engine: what a block does with images, a tile of channels a task.
#include <algorithm>
#include <cstring>

#include "edgetrain/engine.hpp"

namespace edgetrain {

void Engine::forward_conv(const Block& block, std::size_t count, const double* momentum) {
  const ConvRecord& conv = block.conv;
  const ConvForwardLayout layout = forward_layout(block);
  pool_.run(tiles_of(conv.shape.outputs), [&](std::size_t tile_index, std::size_t thread) {
    auto* base = arena_.at<std::uint8_t>(conv.forward_tile + thread * conv.forward_tile_bytes);
    const ConvForwardScratch scratch = {reinterpret_cast<std::int8_t*>(base),
                                        reinterpret_cast<std::int32_t*>(base + layout.tap_sums),
                                        reinterpret_cast<std::int32_t*>(base + layout.initial),
                                        base + layout.image,
                                        reinterpret_cast<std::int32_t*>(base + layout.unpooled)};
    auto* tile = reinterpret_cast<std::int32_t*>(base + layout.tile);
    const BundleTile at = in_bundle(tile_index, conv.bundle.outputs);
    const ConvWeights weights = weights_of(conv, at.bundle);
    const Input input = input_of(conv, at.bundle);
    const Pool pool = pool_of(block, tile_index);
    const auto make = [&](Range run) {
      kernels_.conv_forward(weights, input, run, at.first, scratch, pool, tile);
    };
    if (conv.run_examples < count) {
      stream_tile(block, count, tile_index * lanes, tile, momentum, make);
    } else {
      make({0, count});
      finish_tile(block, count * block.pixels(), tile_index * lanes, tile, momentum);
    }
  });
}

template <class Make>
void Engine::stream_tile(const Block& block, std::size_t count, std::size_t first,
                         std::int32_t* tile, const double* momentum, const Make& make) {
  const std::size_t pixels = block.pixels();
  const auto pass = [&](const auto& visit) {
    for (std::size_t begin = 0; begin < count; begin += block.conv.run_examples) {
      const std::size_t examples = std::min(block.conv.run_examples, count - begin);
      make(Range{begin, examples});
      const Timer timer(profile_, block.layer(), Phase::forward_norm);
      visit(begin * pixels, examples * pixels);
    }
  };
  TileSums sums = {};
  if (momentum != nullptr) {
    pass([&](std::size_t, std::size_t rows) { kernels_.tile_sum(tile, rows, sums); });
    set_levels(sums, count * pixels);
    pass([&](std::size_t, std::size_t rows) { kernels_.tile_above(tile, rows, sums); });
  }
  const NormalisedTile normalised = normalise(block, count * pixels, first, sums, momentum);
  pass([&](std::size_t first_row, std::size_t rows) {
    write_signs(block, first_row, rows, first, tile, normalised.thresholds);
  });
}

float Engine::backward_conv(const Block& block, std::size_t count, float scale,
                            const StepSettings& settings) {
  const ConvRecord& conv = block.conv;
  const ConvGradient gradient = conv_gradient(block);
  const UpdateStep update = update_step(conv.layer, settings);
  const bool weights = kernels_.lookup_weights != nullptr &&
                       can_look_up_weights(conv, program_.examples, program_.draws);
  // The weights must not move before the gradient of the input has read them.
  const bool apart = conv.twice || looks_up_input(conv);
  if (apart) {
    const Timer timer(profile_, conv.layer, Phase::input_gradient);
    if (conv.twice) {
      scale = remake_gradient(block, count, scale, settings);
    } else {
      look_up_input(conv, gradient, count);
    }
  }
  const bool rest = conv.passes() && !apart;
  const bool moves = conv.trains() && !weights;
  if (rest || moves) {
    const Timer timer(moves ? nullptr : profile_, conv.layer, Phase::input_gradient);
    multiply(conv, gradient, count, rest, moves ? &update : nullptr);
  }
  if (weights) {
    look_up_weights(conv, gradient, count, update);
  }
  return scale;
}

bool Engine::looks_up_input(const ConvRecord& conv) const {
  return kernels_.lookup_input != nullptr && can_look_up_input(conv);
}

void Engine::multiply(const ConvRecord& conv, const ConvGradient& gradient, std::size_t count,
                      bool passes, const UpdateStep* update) {
  // Groups that share a bundle share words of weights: one thread takes its tiles in turn.
  const std::size_t turns = conv.bundled > 1 ? tiles_of(conv.bundle.channels) : 1;
  pool_.run(tiles_of(conv.shape.channels) / turns, [&](std::size_t task, std::size_t thread) {
    const ConvBackwardScratch scratch = product_scratch(conv, thread, passes);
    for (std::size_t tile = task * turns; tile < (task + 1) * turns; ++tile) {
      const BundleTile at = in_bundle(tile, conv.bundle.channels);
      kernels_.conv_backward(weights_of(conv, at.bundle), input_of(conv, at.bundle),
                             gradient.from_output(conv.first_output(at.bundle)), {0, count},
                             at.first, scratch, passes ? gradient_below(conv, tile) : nullptr,
                             update);
    }
  });
}

void Engine::index_signs(const ConvRecord& conv) {
  auto* index = arena_.at<std::uint16_t>(conv.sign_index);
  pool_.run(tiles_of(conv.shape.channels), [&](std::size_t tile, std::size_t) {
    const BundleTile at = in_bundle(tile, conv.bundle.channels);
    kernels_.lookup_index(weights_of(conv, at.bundle), at.first,
                          index + tile * sign_index_tile(conv.bundle));
  });
}

void Engine::look_up_input(const ConvRecord& conv, const ConvGradient& gradient,
                           std::size_t count) {
  const std::size_t rows = conv.shape.height * conv.shape.width * lanes;
  index_signs(conv);
  pool_.run(count, [&](std::size_t example, std::size_t thread) {
    look_up_example(conv, gradient, example, thread, gradient_below(conv, 0) + example * rows,
                    program_.examples * rows);
  });
}

// All tiles of one example's gradient, so far apart.
void Engine::look_up_example(const ConvRecord& conv, const ConvGradient& gradient,
                             std::size_t example, std::size_t thread, std::int32_t* out,
                             std::size_t tile_stride) {
  const std::size_t tiles = tiles_of(conv.bundle.channels);
  const auto* index = arena_.at<std::uint16_t>(conv.sign_index);
  for (std::size_t bundle = 0; bundle < conv.bundles(); ++bundle) {
    kernels_.lookup_input(weights_of(conv, bundle), gradient.from_output(conv.first_output(bundle)),
                          example, index + bundle * tiles * sign_index_tile(conv.bundle),
                          lookup_scratch(conv, thread), out + bundle * tiles * tile_stride,
                          tile_stride);
  }
}

void Engine::look_up_weights(const ConvRecord& conv, const ConvGradient& gradient,
                             std::size_t count, const UpdateStep& update) {
  const LookupWeightLayout layout = lookup_weight_layout(conv, program_.examples);
  pool_.run(tiles_of(conv.shape.outputs), [&](std::size_t tile, std::size_t thread) {
    auto* base = backward_scratch(conv, thread);
    const LookupWeightScratch scratch = {base,
                                         reinterpret_cast<std::int16_t*>(base + layout.tables),
                                         reinterpret_cast<std::uint16_t*>(base + layout.index),
                                         reinterpret_cast<std::int32_t*>(base + layout.gradient)};
    const BundleTile at = in_bundle(tile, conv.bundle.outputs);
    kernels_.lookup_weights(weights_of(conv, at.bundle), input_of(conv, at.bundle),
                            gradient.from_output(conv.first_output(at.bundle)), count, at.first,
                            scratch, update);
  });
}

ConvGradient Engine::conv_gradient(const Block& block) const {
  return {arena_.at<std::uint8_t>(block.conv.codes), pool_of(block, 0), program_.draws,
          draw_bytes(block), channel_shifts(block)};
}

ConvBackwardScratch Engine::product_scratch(const ConvRecord& conv, std::size_t thread,
                                            bool passes) const {
  const ConvBackwardLayout layout = backward_layout(conv, program_.examples);
  auto* base = backward_scratch(conv, thread);
  return {base,
          reinterpret_cast<std::int8_t*>(base + layout.input_panel),
          reinterpret_cast<std::int32_t*>(base + layout.gradient),
          reinterpret_cast<std::int32_t*>(base + layout.initial),
          base + layout.code_rows,
          passes ? base + layout.code_image : nullptr,
          reinterpret_cast<std::int8_t*>(base + layout.weight_panel),
          base + layout.patches};
}

LookupInputScratch Engine::lookup_scratch(const ConvRecord& conv, std::size_t thread) const {
  auto* base = backward_scratch(conv, thread);
  return {base, reinterpret_cast<std::int16_t*>(base + lookup_input_layout(conv).tables)};
}

// A tile of the gradient of the input, where it exists whole.
std::int32_t* Engine::gradient_below(const ConvRecord& conv, std::size_t tile) const {
  const std::size_t rows = program_.examples * conv.shape.height * conv.shape.width;
  return arena_.at<std::int32_t>(conv.input_gradient) + tile * rows * lanes;
}

std::uint8_t* Engine::backward_scratch(const ConvRecord& conv, std::size_t thread) const {
  return arena_.at<std::uint8_t>(conv.backward_tile + thread * conv.backward_tile_bytes);
}

// The sum of every channel's signs over an image, as a byte of data.
void Engine::sum_pixels(const Block& block, std::size_t count) {
  const std::size_t pixels = block.pixels();
  const std::size_t words = tiles_of(block.norm.channels);
  const auto* signs = arena_.at<std::uint32_t>(block.sign.sign);
  auto* features = arena_.at<std::uint8_t>(block.features);
  pool_.run(count, [&](std::size_t example, std::size_t) {
    for (std::size_t word = 0; word < words; ++word) {
      std::uint32_t ones[lanes] = {};
      for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
        const std::uint32_t bits = signs[(example * pixels + pixel) * words + word];
        for (std::uint32_t lane = 0; lane < lanes; ++lane) {
          ones[lane] += (bits >> lane) & 1U;
        }
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        features[(example * words + word) * lanes + lane] =
            static_cast<std::uint8_t>(2 * ones[lane] - pixels + std::size_t{data_zero});
      }
    }
  });
}

ConvWeights Engine::weights_of(const ConvRecord& record, std::size_t bundle) const {
  const bool scaled = record.mode == WeightMode::fsb;
  const bool bytes = !scaled && record.holding == Holding::int8;
  return {
      record.mode,
      record.bundle,
      bytes ? arena_.at<std::int8_t>(record.weights) : nullptr,
      scaled ? arena_.at<std::uint8_t>(record.weights) : nullptr,
      derive(seed_, 0, record.layer, Purpose::fixed_signs),
      {record.holding, record.weight_columns(),
       record.shape.taps() * record.shape.channels / record.groups, arena_.at<void>(record.weights),
       arena_.optional<void>(record.moment1), arena_.optional<void>(record.moment2)},
      record.first_output(bundle),
      record.bundled};
}

Input Engine::input_of(const ConvRecord& record, std::size_t bundle) const {
  if (record.gathers()) {
    return {nullptr, nullptr, &patches_};
  }
  if (!record.signs_in) {
    return {nullptr, arena_.at<std::uint8_t>(record.input)};
  }
  return {arena_.at<std::uint32_t>(record.input) + bundle * tiles_of(record.bundle.channels),
          nullptr};
}

// The pool of the outputs from a word on.
Pool Engine::pool_of(const Block& block, std::size_t word) const {
  if (!block.pooled) {
    return {};
  }
  const PoolRecord& record = block.pool;
  const std::size_t words = tiles_of(block.norm.channels);
  auto* low = arena_.optional<std::uint32_t>(record.argument);
  const std::size_t plane = program_.examples * record.height * record.width * words;
  return {record.window_height,
          record.window_width,
          record.height,
          record.width,
          words,
          record.average,
          low == nullptr ? nullptr : low + word,
          low == nullptr ? nullptr : low + plane + word};
}

}  // namespace edgetrain
