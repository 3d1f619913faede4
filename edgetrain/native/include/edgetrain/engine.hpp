// Executes a plan in its arena. Nothing is allocated after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "edgetrain/arena.hpp"
#include "edgetrain/channel_state.hpp"
#include "edgetrain/kernels.hpp"
#include "edgetrain/loss.hpp"
#include "edgetrain/profile.hpp"
#include "edgetrain/program.hpp"
#include "edgetrain/thread_pool.hpp"

namespace edgetrain {

// Rows of a dataset, in place, and those to take.
struct Examples {
  const std::uint8_t* features;
  // XORed into every byte, so that signed data become bytes with 128 added.
  std::uint8_t flip;
  const std::uint8_t* labels;
  const std::uint32_t* indices;
  std::size_t count;
};

struct StepSettings {
  std::uint64_t step;
  std::uint32_t latent_step;
  std::uint32_t scale_step;
  double statistics_momentum;
  ShiftStep shift;
  // See UpdateStep.
  std::uint32_t held_step;
  std::int32_t threshold;
};

void clear(GradientSums& sums);
// Leaves the largest magnitude of dL/dy of every channel in the line's range.
void set_magnitudes(const GradientSums& sums, const GradientLine& line);

// The gradient of one example's input, one tile of it, as it was just made.
struct ExampleGradient {
  const std::int32_t* rows;
  std::size_t example;
  std::size_t tile;
  std::size_t thread;
};

class Engine {
 public:
  // Throws std::invalid_argument for a bad program or an unknown instruction set, std::bad_alloc
  // where the arena cannot be had.
  Engine(const Program& program, std::uint64_t seed, const std::string& isa);

  // Draws the initial weights and resets the state of every channel.
  void initialise();

  // One step of training on one micro-batch. The caller has checked indices and labels.
  LossResult train(const Examples& examples, const StepSettings& settings);
  // The same, and where its time went.
  LossResult train(const Examples& examples, const StepSettings& settings, Profile& profile);
  LossResult evaluate(const Examples& examples);

  const Program& program() const { return program_; }
  const Arena& arena() const { return arena_; }
  const char* isa() const { return kernels_.name; }

 private:
  void load(const Examples& examples);
  void initialise_weights(std::int8_t* latent, std::size_t rows, std::size_t columns, Key key);
  void forward(const Block& block, std::size_t count, const double* momentum);
  void forward_linear(const Block& block, std::size_t count, const double* momentum);
  void forward_conv(const Block& block, std::size_t count, const double* momentum);
  void sum_pixels(const Block& block, std::size_t count);
  void forward_depthwise(const Block& block, std::size_t count, const double* momentum);
  void finish_tile(const Block& block, std::size_t rows, std::size_t first, std::int32_t* tile,
                   const double* momentum);
  // The same where the sums of all rows never exist at once: make(Range) makes those of some
  // examples, three times over.
  template <class Make>
  void stream_tile(const Block& block, std::size_t count, std::size_t first, std::int32_t* tile,
                   const double* momentum, const Make& make);
  struct NormalisedTile {
    TileThresholds thresholds;
    ChannelStatistics statistics[lanes];
  };
  NormalisedTile normalise(const Block& block, std::size_t rows, std::size_t first,
                           const TileSums& sums, const double* momentum);
  void write_signs(const Block& block, std::size_t first_row, std::size_t rows, std::size_t first,
                   const std::int32_t* tile, const TileThresholds& thresholds);
  void write_logits(const Block& block, std::size_t count, std::size_t first,
                    const std::int32_t* tile, const ChannelStatistics* statistics);
  LossResult loss(std::size_t count);
  float backward_norm(const Block& block, std::size_t count, float scale,
                      const StepSettings& settings);
  void decode_codes(const Block& block, std::size_t count);
  void backward_linear(const Block& block, std::size_t count, const StepSettings& settings);
  // Returns the value of a unit of the gradient below, or of its codes where it was made twice.
  float backward_conv(const Block& block, std::size_t count, float scale,
                      const StepSettings& settings);
  void multiply(const ConvRecord& conv, const ConvGradient& gradient, std::size_t count,
                bool passes, const UpdateStep* update);
  bool looks_up_input(const ConvRecord& conv) const;
  void index_signs(const ConvRecord& conv);
  void look_up_input(const ConvRecord& conv, const ConvGradient& gradient, std::size_t count);
  void look_up_example(const ConvRecord& conv, const ConvGradient& gradient, std::size_t example,
                       std::size_t thread, std::int32_t* out, std::size_t tile_stride);
  void look_up_weights(const ConvRecord& conv, const ConvGradient& gradient, std::size_t count,
                       const UpdateStep& update);
  ConvBackwardScratch product_scratch(const ConvRecord& conv, std::size_t thread,
                                      bool passes) const;
  LookupInputScratch lookup_scratch(const ConvRecord& conv, std::size_t thread) const;
  std::int32_t* gradient_below(const ConvRecord& conv, std::size_t tile) const;
  std::uint8_t* backward_scratch(const ConvRecord& conv, std::size_t thread) const;
  void add_branch(const Block& block, std::size_t rows, std::size_t first, std::int32_t* tile);
  void join_signs(const Block& block, std::size_t rows, std::size_t first);
  void send_gradient(const Block& block, std::size_t rows, float scale,
                     const StepSettings& settings);
  float receive_gradients(const Block& block, std::size_t rows, float scale);
  void backward_depthwise(const Block& block, std::size_t count, const StepSettings& settings);
  void encode(const Block& block, const GradientTile& tile, std::size_t first_row,
              std::size_t number, std::uint64_t step);
  float remake_gradient(const Block& block, std::size_t count, float scale,
                        const StepSettings& settings);
  // Calls visit(ExampleGradient) for every tile and example, from several threads at once.
  template <class Visit>
  void make_examples(const Block& block, std::size_t count, const Visit& visit);
  void merge_sums(const Block& block, std::size_t tile) const;
  void finish_sums(const Block& block, std::size_t rows, std::size_t tile, float scale,
                   const StepSettings& settings);
  float set_scales(const Block& block, std::int32_t span);

  // The words of one tile that a shortcut of bits joins, `stride` apart.
  struct JoinedWords {
    std::uint32_t* sign;
    std::uint32_t* mask;
    const std::uint32_t* branch;
    std::size_t stride;
    std::uint32_t valid;
  };
  JoinedWords joined_words(const Block& block, std::size_t first) const;
  void negate_unlike(const Block& block, const JoinedWords& words, std::size_t rows,
                     std::size_t first);

  UpdateStep update_step(std::size_t layer, const StepSettings& settings) const;
  Weights weights_of(const LinearRecord& record) const;
  ConvWeights weights_of(const ConvRecord& record, std::size_t bundle) const;
  Pool pool_of(const Block& block, std::size_t word) const;
  Input input_of(const LinearRecord& record) const;
  Input input_of(const ConvRecord& record, std::size_t bundle) const;
  std::size_t largest_gradient(const Block& block) const;
  GradientTile gradient_tile(const Block& block, std::size_t count, std::size_t first) const;
  GradientTile tile_of(const Block& block, const std::int32_t* gradient, std::size_t first_row,
                       std::size_t count, std::size_t first) const;
  GradientSums& gradient_sums(const Block& block, std::size_t thread, std::size_t tile) const;
  GradientLine gradient_line(const Block& block, std::size_t first) const;
  ConvGradient conv_gradient(const Block& block) const;
  std::uint8_t* channel_shifts(const Block& block) const;
  std::size_t draw_bytes(const Block& block) const;

  Program program_;
  std::uint64_t seed_;
  const Kernels& kernels_;
  Arena arena_;
  ThreadPool pool_;
  // Of the examples at hand, where the first layer is a convolution.
  PatchSource patches_ = {};
  // The value of a unit of the codes that each block's shortcut sent in this step.
  std::vector<float> sent_;
  Profile* profile_ = nullptr;
};

}  // namespace edgetrain
