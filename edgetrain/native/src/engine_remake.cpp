// The gradient of a convolution's input made twice, an example at a time, so that it never exists
// whole: bit for bit what it would have been.
#include <algorithm>

#include "edgetrain/engine.hpp"

namespace edgetrain {

template <class Visit>
void Engine::make_examples(const Block& block, std::size_t count, const Visit& visit) {
  const ConvRecord& conv = block.conv;
  const ConvGradient gradient = conv_gradient(block);
  const std::size_t rows = conv.shape.height * conv.shape.width * lanes;
  const std::size_t tiles = tiles_of(conv.shape.channels);
  const auto made = [&](std::size_t thread) {
    return arena_.at<std::int32_t>(conv.input_gradient) + thread * tiles * rows;
  };
  if (looks_up_input(conv)) {
    pool_.run(count, [&](std::size_t example, std::size_t thread) {
      look_up_example(conv, gradient, example, thread, made(thread), rows);
      for (std::size_t tile = 0; tile < tiles; ++tile) {
        visit(ExampleGradient{made(thread) + tile * rows, example, tile, thread});
      }
    });
    return;
  }
  pool_.run(tiles, [&](std::size_t tile, std::size_t thread) {
    const ConvBackwardScratch scratch = product_scratch(conv, thread, true);
    const BundleTile at = in_bundle(tile, conv.bundle.channels);
    const ConvWeights weights = weights_of(conv, at.bundle);
    const Input input = input_of(conv, at.bundle);
    const ConvGradient part = gradient.from_output(conv.first_output(at.bundle));
    for (std::size_t example = 0; example < count; ++example) {
      kernels_.conv_backward(weights, input, part, {example, 1}, at.first, scratch, made(thread),
                             nullptr);
      visit(ExampleGradient{made(thread), example, tile, thread});
    }
  });
}

// The first time for what is known of it, the second for its codes. Returns the value of a unit of
// these.
float Engine::remake_gradient(const Block& block, std::size_t count, float scale,
                              const StepSettings& settings) {
  const Block& below = program_.blocks[block.layer() - 1];
  if (looks_up_input(block.conv)) {
    index_signs(block.conv);
  }
  const std::size_t pixels = below.pixels();
  const std::size_t tiles = tiles_of(below.norm.channels);
  for (std::size_t part = 0; part < program_.threads * tiles; ++part) {
    clear(gradient_sums(below, 0, part));
  }
  const auto tile_at = [&](const ExampleGradient& made) {
    return tile_of(below, made.rows, made.example * pixels, pixels, made.tile * lanes);
  };
  make_examples(block, count, [&](const ExampleGradient& made) {
    kernels_.gradient_sums(tile_at(made), gradient_sums(below, made.thread, made.tile));
  });
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    merge_sums(below, tile);
    finish_sums(below, count * pixels, tile, scale, settings);
  }
  const float unit = set_scales(below, below.span());
  make_examples(block, count, [&](const ExampleGradient& made) {
    encode(below, tile_at(made), made.example * pixels, made.tile, settings.step);
  });
  return unit;
}

// Adds what the other threads know to what the first does.
void Engine::merge_sums(const Block& block, std::size_t tile) const {
  GradientSums& all = gradient_sums(block, 0, tile);
  for (std::size_t thread = 1; thread < program_.threads; ++thread) {
    const GradientSums& part = gradient_sums(block, thread, tile);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      all.sum[lane] += part.sum[lane];
      all.signed_sum[lane] += part.signed_sum[lane];
      for (std::size_t sign = 0; sign < 2; ++sign) {
        all.lowest[sign][lane] = std::min(all.lowest[sign][lane], part.lowest[sign][lane]);
        all.highest[sign][lane] = std::max(all.highest[sign][lane], part.highest[sign][lane]);
      }
    }
  }
}

}  // namespace edgetrain
