#include "edgetrain/engine.hpp"

#include <algorithm>
#include <cstring>

#include "edgetrain/isa.hpp"

namespace edgetrain {

namespace {

constexpr std::uint8_t initial_scale = 128;

// The gradient of a sum over the pixels of an image is that of each pixel.
void spread_rows(const GradientTarget& below, std::size_t count, std::size_t pixels) {
  for (std::size_t example = 0; example < count; ++example) {
    std::int32_t* first = below.rows + example * below.stride;
    for (std::size_t pixel = 1; pixel < pixels; ++pixel) {
      std::copy_n(first, lanes, first + pixel * lanes);
    }
  }
}

}  // namespace

Engine::Engine(const Program& program, std::uint64_t seed, const std::string& isa)
    : program_(program),
      seed_(seed),
      kernels_(select_kernels(isa)),
      arena_(program.arena_bytes),
      pool_(program.threads),
      sent_(program.blocks.size()) {
  initialise();
}

void Engine::initialise() {
  for (const Block& block : program_.blocks) {
    const Key key = derive(seed_, 0, block.layer(), Purpose::initial_weights);
    if (block.convolutional) {
      const ConvWeights weights = weights_of(block.conv, 0);
      const std::size_t rows = block.conv.weight_rows();
      const std::size_t columns = block.conv.weight_columns();
      if (weights.held.holding != Holding::int8) {
        edgetrain::initialise(weights.held, rows, key, weights.signs);
      } else if (weights.mode == WeightMode::fsb) {
        std::fill_n(weights.scale, block.conv.shape.outputs * columns, initial_scale);
      } else {
        initialise_weights(weights.latent, rows, columns, key);
      }
    } else {
      const Weights weights = weights_of(block.linear);
      if (weights.held.holding != Holding::int8) {
        edgetrain::initialise(weights.held, weights.outputs, key, weights.signs);
      } else if (weights.mode == WeightMode::fsb) {
        std::fill_n(weights.scale, weights.outputs * weights.scales, initial_scale);
      } else {
        initialise_weights(weights.latent, weights.outputs, weights.inputs, key);
      }
    }
    const BatchNormRecord& norm = block.norm;
    for (const std::size_t zeroed : {norm.shift, norm.moment1, norm.moment2, norm.mean}) {
      if (zeroed != absent) {
        std::fill_n(arena_.at<float>(zeroed), norm.channels, 0.0F);
      }
    }
    std::fill_n(arena_.at<float>(norm.deviation), norm.channels, 1.0F);
  }
}

void Engine::initialise_weights(std::int8_t* latent, std::size_t rows, std::size_t columns,
                                Key key) {
  const std::size_t width = padded(columns);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      const std::uint32_t draw = random_byte(key, static_cast<std::uint32_t>(row * width + column));
      const auto level = static_cast<std::int32_t>((draw * 255U) >> 8) - 127;
      latent[row * columns + column] = static_cast<std::int8_t>(level);
    }
  }
}

LossResult Engine::train(const Examples& examples, const StepSettings& settings) {
  load(examples);
  for (const Block& block : program_.blocks) {
    forward(block, examples.count, &settings.statistics_momentum);
  }
  const LossResult result = loss(examples.count);
  float scale = 1.0F / (static_cast<float>(examples.count) * static_cast<float>(gradient_units));
  for (std::size_t index = program_.blocks.size(); index-- > program_.lowest;) {
    const Block& block = program_.blocks[index];
    if (!block.remade) {
      scale = backward_norm(block, examples.count, scale, settings);
    }
    const Timer timer(profile_, index, Phase::gradients);
    if (block.convolutional && block.conv.depthwise()) {
      backward_depthwise(block, examples.count, settings);
    } else if (block.convolutional) {
      scale = backward_conv(block, examples.count, scale, settings);
    } else {
      decode_codes(block, examples.count);
      backward_linear(block, examples.count, settings);
    }
  }
  return result;
}

LossResult Engine::train(const Examples& examples, const StepSettings& settings, Profile& profile) {
  profile_ = &profile;
  const LossResult result = train(examples, settings);
  profile_ = nullptr;
  return result;
}

LossResult Engine::evaluate(const Examples& examples) {
  load(examples);
  for (const Block& block : program_.blocks) {
    forward(block, examples.count, nullptr);
  }
  return loss(examples.count);
}

void Engine::load(const Examples& examples) {
  auto* labels = arena_.at<std::uint8_t>(program_.loss.labels);
  for (std::size_t row = 0; row < examples.count; ++row) {
    labels[row] = examples.labels[examples.indices[row]];
  }
  if (program_.blocks.front().convolutional) {
    const ConvRecord& conv = program_.blocks.front().conv;
    patches_ = {examples.features, examples.indices, examples.flip, conv.source, conv.groups};
    if (!conv.gathers()) {
      const std::size_t bytes = conv.shape.pixels() * padded(conv.shape.channels);
      auto* patches = arena_.at<std::uint8_t>(program_.input);
      pool_.run(examples.count, [&](std::size_t example, std::size_t) {
        gather_patches(patches_, example, patches + example * bytes);
      });
    }
    return;
  }
  const std::size_t features = program_.input_features;
  const std::size_t stride = padded(features);
  auto* input = arena_.at<std::uint8_t>(program_.input);
  for (std::size_t row = 0; row < examples.count; ++row) {
    const std::uint8_t* source = examples.features + examples.indices[row] * features;
    std::uint8_t* target = input + row * stride;
    for (std::size_t feature = 0; feature < features; ++feature) {
      target[feature] = source[feature] ^ examples.flip;
    }
  }
}

// Momentum is null where the running statistics judge, not those of the micro-batch.
void Engine::forward(const Block& block, std::size_t count, const double* momentum) {
  const Timer timer(profile_, block.layer(), Phase::forward);
  if (block.convolutional && block.conv.depthwise()) {
    forward_depthwise(block, count, momentum);
  } else if (block.convolutional) {
    forward_conv(block, count, momentum);
  } else {
    forward_linear(block, count, momentum);
  }
  if (block.averaged) {
    sum_pixels(block, count);
  }
}

void Engine::forward_linear(const Block& block, std::size_t count, const double* momentum) {
  const LinearRecord& linear = block.linear;
  const Weights weights = weights_of(linear);
  const Input input = input_of(linear);
  if (linear.signs_in && linear.input_bytes != absent) {
    kernels_.expand_signs(input.signs, padded(linear.inputs) / lanes, count,
                          arena_.at<std::uint8_t>(linear.input_bytes));
  }
  const std::size_t panel = forward_panel_bytes(linear);
  pool_.run(tiles_of(linear.outputs), [&](std::size_t tile_index, std::size_t thread) {
    auto* base = arena_.at<std::int8_t>(linear.forward_tile + thread * linear.forward_tile_bytes);
    auto* initial = reinterpret_cast<std::int32_t*>(base + panel);
    std::int32_t* tile = initial + 2 * lanes;
    kernels_.linear_forward(weights, input, count, tile_index * lanes, {base, initial}, tile);
    finish_tile(block, count, tile_index * lanes, tile, momentum);
  });
}

LossResult Engine::loss(std::size_t count) {
  const LossRecord& record = program_.loss;
  return softmax_cross_entropy(arena_.at<float>(record.logits),
                               arena_.at<std::uint8_t>(record.labels), count, record.classes,
                               arena_.at<std::int32_t>(record.gradient), program_.examples);
}

void Engine::decode_codes(const Block& block, std::size_t count) {
  const LinearRecord& linear = block.linear;
  const std::size_t width = padded(linear.outputs);
  const std::size_t columns = width * padded(program_.examples, 4);
  pool_.run(tiles_of(linear.outputs), [&](std::size_t tile, std::size_t) {
    // The first draw last: its rows are those that stay.
    for (std::size_t draw = program_.draws; draw-- > 0;) {
      auto* column = arena_.optional<std::uint8_t>(linear.code_columns);
      kernels_.decode_codes(arena_.at<std::uint8_t>(linear.codes + draw * draw_bytes(block)), count,
                            tile * lanes, width, arena_.at<std::uint8_t>(linear.code_rows),
                            column == nullptr ? nullptr : column + draw * columns);
    }
  });
}

void Engine::backward_linear(const Block& block, std::size_t count, const StepSettings& settings) {
  const LinearRecord& linear = block.linear;
  const Weights weights = weights_of(linear);
  const Input input = input_of(linear);
  const Codes codes = {
      arena_.at<std::uint8_t>(linear.code_rows), arena_.optional<std::uint8_t>(linear.code_columns),
      program_.draws, padded(linear.outputs) * padded(program_.examples, 4), channel_shifts(block)};
  // Above a flatten, a tile of inputs is a tile of channels of one pixel: its rows lie apart. Above
  // an average it is one of all pixels: the gradient of the first is copied to the others.
  const bool passes = linear.input_gradient != absent;
  const bool averaged = passes && program_.blocks[linear.layer - 1].averaged;
  const std::size_t pixels = passes ? program_.blocks[linear.layer - 1].pixels() : 1;
  const std::size_t words = tiles_of(linear.inputs) / (averaged ? 1 : pixels);
  const UpdateStep update = update_step(linear.layer, settings);
  const std::size_t input_panel = input_panel_bytes(linear, program_.examples);
  const std::size_t weight_panel = weight_panel_bytes(linear);
  pool_.run(tiles_of(linear.inputs), [&](std::size_t tile, std::size_t thread) {
    auto* base = arena_.at<std::int8_t>(linear.backward_tile + thread * linear.backward_tile_bytes);
    auto* initial = reinterpret_cast<std::int32_t*>(base + input_panel + weight_panel);
    const BackwardScratch scratch = {base, base + input_panel, initial, initial + 2 * lanes};
    GradientTarget below = {nullptr, 0};
    if (passes) {
      const std::size_t row = tile % words * program_.examples * pixels + tile / words;
      below = {arena_.at<std::int32_t>(linear.input_gradient) + row * lanes, pixels * lanes};
    }
    kernels_.linear_backward(weights, input, codes, count, tile * lanes, scratch, below, update);
    if (averaged) {
      spread_rows(below, count, pixels);
    }
  });
}

UpdateStep Engine::update_step(std::size_t layer, const StepSettings& settings) const {
  return {derive(seed_, settings.step, layer, Purpose::weight_update),
          settings.latent_step,
          settings.scale_step,
          settings.held_step,
          settings.threshold,
          static_cast<float>(settings.shift.learning_rate),
          static_cast<float>(settings.shift.correction1),
          static_cast<float>(settings.shift.correction2)};
}

Weights Engine::weights_of(const LinearRecord& record) const {
  const bool scaled = record.mode == WeightMode::fsb;
  const bool bytes = !scaled && record.holding == Holding::int8;
  return {record.mode,
          record.inputs,
          record.outputs,
          record.group,
          scaled ? (record.inputs + record.group - 1) / record.group : record.inputs,
          bytes ? arena_.at<std::int8_t>(record.weights) : nullptr,
          scaled ? arena_.at<std::uint8_t>(record.weights) : nullptr,
          derive(seed_, 0, record.layer, Purpose::fixed_signs),
          {record.holding, record.inputs, record.inputs, arena_.at<void>(record.weights),
           arena_.optional<void>(record.moment1), arena_.optional<void>(record.moment2)}};
}

Input Engine::input_of(const LinearRecord& record) const {
  if (!record.signs_in) {
    return {nullptr, arena_.at<std::uint8_t>(record.input)};
  }
  return {arena_.at<std::uint32_t>(record.input),
          record.input_bytes == absent ? nullptr : arena_.at<std::uint8_t>(record.input_bytes)};
}

}  // namespace edgetrain
