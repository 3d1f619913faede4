// What a block does with a depthwise convolution, a tile of 32 channels a task.
#include "edgetrain/engine.hpp"
#include "reader.hpp"

namespace edgetrain {

namespace {

constexpr std::size_t row_bytes = lanes * sizeof(std::int32_t);

}  // namespace

DepthwiseForwardLayout depthwise_forward_layout(const Block& block, std::size_t examples) {
  const ConvShape& shape = block.conv.shape;
  DepthwiseForwardLayout layout{};
  layout.image = padded(shape.taps() * lanes, alignment);
  layout.unpooled =
      layout.image + padded(shape.image_height() * shape.image_width() * lanes, alignment);
  layout.tile = layout.unpooled + (block.pooled ? shape.pixels() * row_bytes : 0);
  layout.end = layout.tile + examples * block.pixels() * row_bytes;
  return layout;
}

DepthwiseBackwardLayout depthwise_backward_layout(const ConvShape& shape) {
  DepthwiseBackwardLayout layout{};
  layout.image = padded(shape.taps() * lanes, alignment);
  layout.codes =
      layout.image + padded(shape.image_height() * shape.image_width() * lanes, alignment);
  layout.gradient =
      layout.codes + padded(shape.code_height() * shape.code_width() * lanes, alignment);
  layout.end = layout.gradient + shape.taps() * row_bytes;
  return layout;
}

void Engine::forward_depthwise(const Block& block, std::size_t count, const double* momentum) {
  const ConvRecord& conv = block.conv;
  const ConvWeights weights = weights_of(conv);
  const DepthwiseForwardLayout layout = depthwise_forward_layout(block, program_.examples);
  const Input input = input_of(conv);
  pool_.run(tiles_of(conv.shape.outputs), [&](std::size_t tile_index, std::size_t thread) {
    auto* base = arena_.at<std::int8_t>(conv.forward_tile + thread * conv.forward_tile_bytes);
    const DepthwiseForwardScratch scratch = {
        base, base + layout.image, reinterpret_cast<std::int32_t*>(base + layout.unpooled)};
    auto* tile = reinterpret_cast<std::int32_t*>(base + layout.tile);
    Pool pool = pool_of(block);
    if (pool.low != nullptr) {
      pool.low += tile_index;
      pool.high += tile_index;
    }
    kernels_.depthwise.forward(weights, input, count, tile_index * lanes, scratch, pool, tile);
    finish_tile(block, count * block.pixels(), tile_index * lanes, tile, momentum);
  });
}

void Engine::backward_depthwise(const Block& block, std::size_t count,
                                const StepSettings& settings) {
  const ConvRecord& conv = block.conv;
  const ConvShape& shape = conv.shape;
  const ConvWeights weights = weights_of(conv);
  const DepthwiseBackwardLayout layout = depthwise_backward_layout(shape);
  const Input input = input_of(conv);
  const ConvGradient gradient = conv_gradient(block);
  const UpdateStep update = update_step(conv.layer, settings);
  const bool passes = conv.input_gradient != absent;
  pool_.run(tiles_of(shape.channels), [&](std::size_t tile, std::size_t thread) {
    auto* base = arena_.at<std::int8_t>(conv.backward_tile + thread * conv.backward_tile_bytes);
    const DepthwiseBackwardScratch scratch = {
        base, base + layout.image, base + layout.codes,
        reinterpret_cast<std::int32_t*>(base + layout.gradient)};
    const std::size_t rows = program_.examples * shape.height * shape.width;
    auto* below =
        passes ? arena_.at<std::int32_t>(conv.input_gradient) + tile * rows * lanes : nullptr;
    kernels_.depthwise.backward(weights, input, gradient, count, tile * lanes, scratch, below,
                                conv.trains() ? &update : nullptr);
  });
}

}  // namespace edgetrain
