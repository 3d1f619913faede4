// A plan as the engine reads it. The words come from outside, so every size and every offset is
// checked here, once: after parsing, nothing can reach past the arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

constexpr std::size_t absent = static_cast<std::size_t>(-1);

struct LinearRecord {
  std::size_t layer;
  WeightMode mode;
  bool signs_in;
  std::size_t inputs;
  std::size_t outputs;
  std::size_t group;
  std::size_t weights;
  std::size_t input;
  std::size_t input_bytes;
  std::size_t input_gradient;
  std::size_t codes;
  std::size_t code_rows;
  std::size_t code_columns;
  std::size_t forward_tile;
  std::size_t forward_tile_bytes;
  std::size_t backward_tile;
  std::size_t backward_tile_bytes;
};

// Whether the layer's product is a popcount: bits meet bits.
bool is_binary(const LinearRecord& record);
// Where a tile's panels end, each rounded up to a cache line; sums and results follow.
std::size_t forward_panel_bytes(const LinearRecord& record);
std::size_t input_panel_bytes(std::size_t examples);
std::size_t weight_panel_bytes(const LinearRecord& record);

struct BatchNormRecord {
  std::size_t channels;
  std::size_t shift;
  std::size_t moment1;
  std::size_t moment2;
  std::size_t mean;
  std::size_t deviation;
  std::size_t inverse_deviation;
  std::size_t output_gradient;
  std::size_t channel_sums;
  // Present in the last block alone.
  std::size_t sign;
  std::size_t logits;
};

struct SignRecord {
  std::size_t channels;
  std::size_t sign;
  std::size_t mask;
};

struct LossRecord {
  std::size_t classes;
  std::size_t logits;
  std::size_t gradient;
  std::size_t labels;
};

struct Block {
  LinearRecord linear;
  BatchNormRecord norm;
  // Meaningful in every block but the last.
  SignRecord sign;
  bool last;
};

struct Program {
  std::size_t examples;
  std::size_t threads;
  std::size_t arena_bytes;
  std::size_t input_features;
  std::size_t input;
  std::vector<Block> blocks;
  LossRecord loss;
};

// Throws std::invalid_argument for a program that is damaged or does not fit its arena.
Program parse_program(const std::int64_t* words, std::size_t count);

}  // namespace edgetrain
