// Shortcuts: bits of an earlier block that meet the sums or the signs of another, and the gradient
// that goes the way back as 4-bit codes.
#include <algorithm>
#include <cmath>

#include "edgetrain/engine.hpp"

namespace edgetrain {

namespace {

std::uint32_t valid_lanes(std::size_t channels, std::size_t first) {
  return channels - first >= lanes ? ~0U : (1U << (channels - first)) - 1U;
}

// What a byte of two codes adds to two gradients.
using CodePairs = std::int32_t[256][2];

void fill_pairs(double ratio, CodePairs& pairs) {
  constexpr double limit = largest_entry;
  std::int32_t entries[16];
  for (std::size_t code = 0; code < 16; ++code) {
    const double value = static_cast<double>(code_bytes[code] - code_zero) * ratio;
    // In this order a value that is not a number, which only a damaged plan makes, has a bound too.
    const double bounded = std::min(limit, std::max(-limit, value));
    entries[code] = static_cast<std::int32_t>(std::nearbyint(bounded));
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    pairs[byte][0] = entries[byte & 15];
    pairs[byte][1] = entries[byte >> 4];
  }
}

void add_codes(const CodePairs& pairs, const std::uint8_t* codes, std::size_t width,
               std::size_t count, std::int32_t* gradient, std::size_t stride) {
  for (std::size_t row = 0; row < count; ++row, codes += width / 2, gradient += stride) {
    for (std::size_t byte = 0; byte < lanes / 2; ++byte) {
      gradient[2 * byte] += pairs[codes[byte]][0];
      gradient[2 * byte + 1] += pairs[codes[byte]][1];
    }
  }
}

// Calls visit(row of the block, row of what its shortcut reads) for every line of every image.
template <class Visit>
void for_each_line(const Block& block, const Block& source, std::size_t stride, std::size_t rows,
                   const Visit& visit) {
  const std::size_t lines = rows / block.width();
  for (std::size_t line = 0; line < lines; ++line) {
    const std::size_t example = line / block.height();
    const std::size_t y = line % block.height() * stride;
    visit(line * block.width(), (example * source.height() + y) * source.width());
  }
}

}  // namespace

void Engine::add_branch(const Block& block, std::size_t rows, std::size_t first,
                        std::int32_t* tile) {
  const ShortcutRecord& shortcut = block.shortcut;
  if (shortcut.join != Join::add) {
    return;
  }
  const Block& source = program_.blocks[shortcut.source];
  const std::size_t words = tiles_of(source.norm.channels);
  const auto* signs = arena_.at<std::uint32_t>(source.sign.sign) + first / lanes % words;
  for_each_line(block, source, shortcut.stride, rows, [&](std::size_t row, std::size_t below) {
    kernels_.add_signs(signs + below * words, shortcut.stride * words, block.width(), shortcut.gain,
                       tile + row * lanes);
  });
}

Engine::JoinedWords Engine::joined_words(const Block& block, std::size_t first) const {
  const SignRecord& source = program_.blocks[block.shortcut.source].sign;
  const std::size_t word = first / lanes;
  auto* mask = arena_.optional<std::uint32_t>(block.sign.mask);
  return {arena_.at<std::uint32_t>(block.sign.sign) + word, mask == nullptr ? nullptr : mask + word,
          arena_.at<std::uint32_t>(source.sign) + word, tiles_of(block.norm.channels),
          valid_lanes(block.norm.channels, first)};
}

// What leaves the block takes the place of its signs. Under or, where the branch is +1, no gradient
// passes to the sign, and its mask is free to hold it.
void Engine::join_signs(const Block& block, std::size_t rows, std::size_t first) {
  if (!block.shortcut.joins_bits()) {
    return;
  }
  const JoinedWords words = joined_words(block, first);
  for (std::size_t at = 0; at < rows * words.stride; at += words.stride) {
    const std::uint32_t a = words.sign[at];
    const std::uint32_t b = words.branch[at];
    if (block.shortcut.join == Join::xnor) {
      words.sign[at] = ~(a ^ b) & words.valid;
    } else {
      words.sign[at] = a | b;
      if (words.mask != nullptr) {
        words.mask[at] = (a & b) | (words.mask[at] & ~b);
      }
    }
  }
}

// Keeps the branch's share of the gradient of what left the block as codes, and leaves the signs'
// share, the signs and their mask in place.
void Engine::send_gradient(const Block& block, std::size_t rows, float scale,
                           const StepSettings& settings) {
  const bool xnor = block.shortcut.join == Join::xnor;
  const std::size_t tiles = tiles_of(block.norm.channels);
  float slope[lanes];
  float nothing[lanes] = {};
  std::fill_n(slope, lanes, scale);
  const auto line_from = [&](std::size_t first) -> GradientLine {
    return {slope, nothing, nothing, gradient_line(block, first).range};
  };
  const auto sent_tile = [&](const JoinedWords& words, std::size_t first) {
    GradientTile tile = gradient_tile(block, rows, first);
    // Under or, the word of signs holds for the while where the gradient passes to the branch.
    tile.mask = xnor ? nullptr : words.sign;
    return tile;
  };
  pool_.run(tiles, [&](std::size_t tile, std::size_t) {
    const JoinedWords words = joined_words(block, tile * lanes);
    if (xnor) {
      negate_unlike(block, words, rows, tile * lanes);
    } else {
      for (std::size_t at = 0; at < rows * words.stride; at += words.stride) {
        const std::uint32_t b = words.branch[at];
        words.sign[at] = ~((words.mask[at] & b) | (words.sign[at] & ~b));
        words.mask[at] &= ~b;
      }
    }
    GradientSums& sums = gradient_sums(block, 0, tile);
    clear(sums);
    kernels_.gradient_sums(sent_tile(words, tile * lanes), sums);
    set_magnitudes(sums, line_from(tile * lanes));
  });
  sent_[block.layer()] = set_scales(block, 0);
  const Key key = derive(seed_, settings.step, block.layer(), Purpose::branch_codes);
  auto* codes = arena_.at<std::uint8_t>(block.shortcut.codes);
  pool_.run(tiles, [&](std::size_t tile, std::size_t) {
    const JoinedWords words = joined_words(block, tile * lanes);
    kernels_.gradient_codes(sent_tile(words, tile * lanes), line_from(tile * lanes), key,
                            {0, tile * lanes, tiles * lanes}, codes);
    for (std::size_t at = 0; at < rows * words.stride; at += words.stride) {
      words.sign[at] = xnor ? ~(words.sign[at] ^ words.branch[at]) : ~words.sign[at];
    }
    if (xnor) {
      negate_unlike(block, words, rows, tile * lanes);
    }
  });
}

// Once before the codes, with what left the block: the gradient times its sign. Once after, with
// the sign: what remains is the gradient times the branch.
void Engine::negate_unlike(const Block& block, const JoinedWords& words, std::size_t rows,
                           std::size_t first) {
  auto* gradient = arena_.at<std::int32_t>(block.norm.output_gradient) +
                   first * program_.examples * block.pixels();
  kernels_.negate_unlike(words.sign, words.branch, words.stride, rows, gradient);
}

// Adds to the gradient of what left a block what the shortcuts that read it sent. Returns its
// scale: where the block above sent nothing, that of the first shortcut.
float Engine::receive_gradients(const Block& block, std::size_t rows, float scale) {
  if (block.copies == 0) {
    return scale;
  }
  const std::size_t channels = padded(block.norm.channels);
  for (const Block& reader : program_.blocks) {
    const ShortcutRecord& shortcut = reader.shortcut;
    const float unit = sent_[reader.layer()];
    if (shortcut.join == Join::none || shortcut.source != block.layer() || unit == 0.0F) {
      continue;
    }
    scale = scale == 0.0F ? unit : scale;
    CodePairs pairs;
    fill_pairs(static_cast<double>(unit) / static_cast<double>(scale), pairs);
    const std::size_t width = padded(reader.norm.channels);
    const std::size_t stride = shortcut.joins_bits() ? 1 : shortcut.stride;
    pool_.run(channels / lanes, [&](std::size_t tile, std::size_t) {
      auto* gradient = arena_.at<std::int32_t>(block.norm.output_gradient) +
                       tile * lanes * program_.examples * block.pixels();
      for (std::size_t copy = tile * lanes; copy < width; copy += channels) {
        const auto* codes = arena_.at<std::uint8_t>(shortcut.codes) + copy / 2;
        for_each_line(reader, block, stride, rows / block.pixels() * reader.pixels(),
                      [&](std::size_t row, std::size_t below) {
                        add_codes(pairs, codes + row * width / 2, width, reader.width(),
                                  gradient + below * lanes, stride * lanes);
                      });
      }
    });
  }
  return scale;
}

}  // namespace edgetrain
