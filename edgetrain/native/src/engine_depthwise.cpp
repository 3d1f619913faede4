// What a block does with a depthwise convolution, a tile of 32 channels a task.
#include "edgetrain/engine.hpp"

namespace edgetrain {

void Engine::forward_depthwise(const Block& block, std::size_t count, const double* momentum) {
  const ConvRecord& conv = block.conv;
  const ConvWeights weights = weights_of(conv, 0);
  const DepthwiseForwardLayout layout = depthwise_forward_layout(block, program_.examples);
  const Input input = input_of(conv, 0);
  pool_.run(tiles_of(conv.shape.outputs), [&](std::size_t tile_index, std::size_t thread) {
    auto* base = arena_.at<std::int8_t>(conv.forward_tile + thread * conv.forward_tile_bytes);
    const DepthwiseForwardScratch scratch = {
        base, base + layout.image, reinterpret_cast<std::int32_t*>(base + layout.unpooled)};
    auto* tile = reinterpret_cast<std::int32_t*>(base + layout.tile);
    kernels_.depthwise.forward(weights, input, count, tile_index * lanes, scratch,
                               pool_of(block, tile_index), tile);
    finish_tile(block, count * block.pixels(), tile_index * lanes, tile, momentum);
  });
}

void Engine::backward_depthwise(const Block& block, std::size_t count,
                                const StepSettings& settings) {
  const ConvRecord& conv = block.conv;
  const ConvShape& shape = conv.shape;
  const ConvWeights weights = weights_of(conv, 0);
  const DepthwiseBackwardLayout layout = depthwise_backward_layout(shape);
  const Input input = input_of(conv, 0);
  const ConvGradient gradient = conv_gradient(block);
  const UpdateStep update = update_step(conv.layer, settings);
  pool_.run(tiles_of(shape.channels), [&](std::size_t tile, std::size_t thread) {
    auto* base = reinterpret_cast<std::int8_t*>(backward_scratch(conv, thread));
    const DepthwiseBackwardScratch scratch = {
        base, base + layout.image, base + layout.codes,
        reinterpret_cast<std::int32_t*>(base + layout.gradient)};
    kernels_.depthwise.backward(weights, input, gradient, count, tile * lanes, scratch,
                                conv.passes() ? gradient_below(conv, tile) : nullptr,
                                conv.trains() ? &update : nullptr);
  });
}

}  // namespace edgetrain
