// Every micro-kernel of every instruction set that this processor runs, against its portable twin
// on random inputs. Prints a digest of the twin's results: two machines must print the same.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "edgetrain/isa.hpp"
#include "isa/portable_lookup.hpp"
#include "micro_kernels.hpp"

namespace edgetrain {
namespace {

constexpr std::size_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 70};

class Random {
 public:
  std::uint32_t next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state_ >> 32);
  }

  // Every few elements an extreme one.
  template <class T>
  std::vector<T> values(std::size_t count) {
    std::vector<T> result(count);
    for (T& value : result) {
      const std::uint32_t extreme = next() % 16;
      std::uint64_t bits = next();
      if (extreme < 4) {
        const std::uint64_t top = std::uint64_t{1} << (8 * sizeof(T) - 1);
        const std::uint64_t edges[4] = {0, top, top - 1, ~std::uint64_t{0}};
        bits = edges[extreme];
      }
      value = static_cast<T>(bits);
    }
    return result;
  }

 private:
  std::uint64_t state_ = 20240607;
};

class Comparison {
 public:
  explicit Comparison(const char* name) : name_(name) {}

  template <class T>
  void equal(const char* kernel, const std::vector<T>& twin, const std::vector<T>& result) {
    for (std::size_t i = 0; i < twin.size(); ++i) {
      if (twin[i] != result[i]) {
        std::fprintf(stderr, "%s: %s differs at %zu: %lld, and not %lld\n", name_, kernel, i,
                     static_cast<long long>(result[i]), static_cast<long long>(twin[i]));
        std::exit(1);
      }
    }
    // FNV-1a, over values and not their memory, whose order may be another elsewhere.
    for (const T value : twin) {
      digest_ = (digest_ ^ static_cast<std::uint32_t>(value)) * 0x100000001B3U;
    }
    ++compared_;
  }

  void report() const {
    std::printf("%-9s %zu comparisons equal, digest %016llx\n", name_, compared_,
                static_cast<unsigned long long>(digest_));
  }

 private:
  const char* name_;
  std::size_t compared_ = 0;
  std::uint64_t digest_ = 0xCBF29CE484222325U;
};

void compare_words(const MicroKernels& twin, const MicroKernels& isa, Random& random,
                   Comparison& comparison) {
  const auto latents = random.values<std::int8_t>(lanes);
  comparison.equal<std::uint32_t>("sign_word", {twin.sign_word(latents.data())},
                                  {isa.sign_word(latents.data())});
  const auto values = random.values<std::int32_t>(lanes);
  auto thresholds = random.values<std::int32_t>(lanes);
  std::memcpy(thresholds.data(), values.data(), 4 * sizeof(std::int32_t));
  comparison.equal<std::uint32_t>("at_least", {twin.at_least(values.data(), thresholds.data())},
                                  {isa.at_least(values.data(), thresholds.data())});
}

void compare_xnor(const MicroKernels& twin, const MicroKernels& isa, Random& random,
                  Comparison& comparison) {
  for (const std::size_t words : counts) {
    for (const std::size_t count : counts) {
      const std::size_t stride = words + random.next() % 3;
      // A stride below the length is what neighbouring windows of a convolution have.
      const std::size_t step = random.next() % 2 == 0 ? stride : words / 2 + 1;
      const auto rows = random.values<std::uint32_t>(count * (stride + words));
      const auto panel = random.values<std::uint32_t>(words * lanes);
      const bool accumulate = random.next() % 2 == 0;
      const auto inputs = static_cast<std::int32_t>(random.next() % (32 * 70));
      // Small enough that no sum leaves 32 bits; one row more shows writes past the end.
      std::vector<std::int32_t> expected((count + 1) * lanes);
      for (std::int32_t& value : expected) {
        value = static_cast<std::int32_t>(random.next() >> 4) - (1 << 27);
      }
      auto result = expected;
      twin.xnor(rows.data(), step, words, count, panel.data(), inputs, accumulate, expected.data());
      isa.xnor(rows.data(), step, words, count, panel.data(), inputs, accumulate, result.data());
      comparison.equal("xnor", expected, result);
    }
  }
}

void compare_dot(const MicroKernels& twin, const MicroKernels& isa, Random& random,
                 Comparison& comparison) {
  constexpr std::int32_t multipliers[] = {1, 2, -1, -128, 254};
  for (const std::size_t quads : counts) {
    for (const std::size_t count : counts) {
      // Both layouts: rows of quads, and quads of rows.
      const bool by_row = random.next() % 2 == 0;
      const std::size_t extra = random.next() % 3;
      const std::size_t row_stride = by_row ? 4 * (quads + extra) : 4;
      const std::size_t quad_stride = by_row ? 4 : 4 * (count + extra);
      const auto bytes =
          random.values<std::uint8_t>(4 * (quads + extra) * (count + extra) + 4 * extra);
      const auto panel = random.values<std::int8_t>(quads * 4 * lanes);
      const std::int32_t multiplier = multipliers[random.next() % 5];
      const bool accumulate = random.next() % 2 == 0;
      const std::size_t out_stride = lanes * (1 + random.next() % 2);
      std::vector<std::int32_t> initial(lanes);
      for (std::int32_t& value : initial) {
        value = static_cast<std::int32_t>(random.next() >> 8) - (1 << 23);
      }
      std::vector<std::int32_t> expected((count + 1) * out_stride, 77);
      auto result = expected;
      const ByteRows rows{bytes.data(), row_stride, quad_stride};
      twin.dot(rows, count, panel.data(), quads, initial.data(), multiplier, accumulate,
               expected.data(), out_stride);
      isa.dot(rows, count, panel.data(), quads, initial.data(), multiplier, accumulate,
              result.data(), out_stride);
      comparison.equal("dot", expected, result);
    }
  }
}

// The products at the ends of their range, where a sum in 16 bits would overflow or saturate.
void compare_extreme_dot(const MicroKernels& twin, const MicroKernels& isa,
                         Comparison& comparison) {
  constexpr std::size_t quads = 9;
  constexpr std::size_t count = 5;
  const std::vector<std::int32_t> initial(lanes, 3);
  for (const int value : {0, 1, 127, 128, 255}) {
    for (const int weight : {-128, -127, -1, 0, 1, 127}) {
      const std::vector<std::uint8_t> bytes(4 * quads * count, static_cast<std::uint8_t>(value));
      const std::vector<std::int8_t> panel(quads * 4 * lanes, static_cast<std::int8_t>(weight));
      std::vector<std::int32_t> expected(count * lanes);
      auto result = expected;
      const ByteRows rows{bytes.data(), 4 * quads, 4};
      twin.dot(rows, count, panel.data(), quads, initial.data(), 2, false, expected.data(), lanes);
      isa.dot(rows, count, panel.data(), quads, initial.data(), 2, false, result.data(), lanes);
      comparison.equal("dot", expected, result);
    }
  }
}

void compare_layouts(const MicroKernels& twin, const MicroKernels& isa, Random& random,
                     Comparison& comparison) {
  for (std::size_t form = 0; form < 3; ++form) {
    const std::size_t stride = lanes + random.next() % 64;
    const auto rows = random.values<std::int8_t>(lanes * stride);
    std::vector<std::int8_t> expected(4 * lanes);
    auto result = expected;
    twin.interleave[form](rows.data(), stride, expected.data());
    isa.interleave[form](rows.data(), stride, result.data());
    comparison.equal("interleave", expected, result);
    expected.assign(lanes * lanes, 0);
    result = expected;
    twin.transpose[form](rows.data(), stride, expected.data());
    isa.transpose[form](rows.data(), stride, result.data());
    comparison.equal("transpose", expected, result);
  }
}

void compare_bytes(const MicroKernels& twin, const MicroKernels& isa, Random& random,
                   Comparison& comparison) {
  constexpr std::uint32_t steps[] = {0, 1, 100, 255, 256, 1000, 65279, 65280, 65281, 1U << 20};
  for (const std::uint32_t step : steps) {
    auto expected = random.values<std::int8_t>(lanes);
    auto result = expected;
    const auto gradient = random.values<std::int32_t>(lanes);
    const Key key{random.next(), random.next()};
    const std::uint32_t index = random.next() >> 3;
    twin.update_latents(expected.data(), gradient.data(), key, index, step);
    isa.update_latents(result.data(), gradient.data(), key, index, step);
    comparison.equal("update_latents", expected, result);
  }
  const auto codes = random.values<std::uint8_t>(lanes / 2);
  std::vector<std::uint8_t> expected(lanes);
  auto result = expected;
  twin.decode(codes.data(), expected.data());
  isa.decode(codes.data(), result.data());
  comparison.equal("decode", expected, result);
}

void compare_tables(const LookupKernels& isa, Random& random, Comparison& comparison) {
  std::uint8_t codes[group_codes + 1];
  for (std::uint8_t& code : codes) {
    code = code_bytes[random.next() % 16];
  }
  std::vector<std::int16_t> expected(lanes);
  auto result = expected;
  PortableLookup::sum_table(codes, codes + 4, expected.data());
  isa.sum_table(codes, codes + 4, result.data());
  comparison.equal("sum_table", expected, result);

  constexpr std::size_t most = groups_of_index * group_codes;
  const std::size_t count = 1 + random.next() % most;
  std::uint32_t places[most];
  for (std::uint32_t& place : places) {
    place = random.next() % 5 == 0 ? no_place : random.next() % 20;
  }
  const std::size_t stride = 1 + random.next() % 4;
  const auto words = random.values<std::uint32_t>(20 * stride);
  std::vector<std::uint16_t> expected_index(lanes);
  auto index = expected_index;
  PortableLookup::gather_bits(words.data(), stride, places, count, expected_index.data());
  isa.gather_bits(words.data(), stride, places, count, index.data());
  comparison.equal("gather_bits", expected_index, index);
}

// Tables as large as they come: so many of them just fit the sums of 16 bits.
void compare_lookups(const LookupKernels& isa, Random& random, Comparison& comparison) {
  constexpr std::int16_t largest = group_codes * code_zero;
  for (const std::size_t count : counts) {
    const std::size_t groups = 1 + random.next() % (most_lookups / 3);
    const std::size_t pixels = std::min(count, most_lookups / groups);
    const std::size_t tiles = 1 + random.next() % 5;
    std::vector<std::int16_t> tables((count + 4) * groups * lanes * 4);
    for (std::int16_t& sum : tables) {
      sum = random.next() % 4 != 0
                ? largest
                : static_cast<std::int16_t>(random.next() % (2 * largest + 1) - largest);
    }
    const std::size_t indices = indices_of(groups) * lanes;
    const auto index = random.values<std::uint16_t>((count + 4) * tiles * indices);
    const std::size_t out_rows = std::max(count, 4 * tiles) + 1;
    std::vector<std::int32_t> expected(out_rows * lanes, 5);
    auto result = expected;
    for (const std::size_t taps : {2, 3}) {
      const LookupTables given = {tables.data(), groups * lanes, groups};
      PortableLookup::lookup_pixels(given, count, index.data(), indices, taps, expected.data());
      isa.lookup_pixels(given, count, index.data(), indices, taps, result.data());
      comparison.equal("lookup_pixels", expected, result);
    }
    const LookupTables given = {tables.data(), pixels * groups * lanes, groups};
    PortableLookup::lookup_outputs(given, pixels, index.data(), tiles * indices, tiles, indices,
                                   expected.data(), 4 * lanes);
    isa.lookup_outputs(given, pixels, index.data(), tiles * indices, tiles, indices, result.data(),
                       4 * lanes);
    comparison.equal("lookup_outputs", expected, result);
  }
}

std::vector<const MicroKernels*> built() {
  std::vector<const MicroKernels*> all = {&micro_kernels<Portable>()};
#if defined(__x86_64__)
  all.push_back(&micro_kernels<Avx2>());
  all.push_back(&micro_kernels<Avx512>());
#elif defined(__aarch64__)
  all.push_back(&micro_kernels<Neon>());
  all.push_back(&micro_kernels<NeonDot>());
#endif
  return all;
}

void compare(const MicroKernels& isa) {
  const MicroKernels& twin = micro_kernels<Portable>();
  // Where there is no lookup the twin stands in, so that every digest covers the same.
  constexpr LookupKernels twin_lookup = {&PortableLookup::sum_table, &PortableLookup::gather_bits,
                                         &PortableLookup::lookup_pixels,
                                         &PortableLookup::lookup_outputs};
  const LookupKernels& lookup = isa.lookup != nullptr ? *isa.lookup : twin_lookup;
  Random random;
  Comparison comparison(isa.name);
  compare_extreme_dot(twin, isa, comparison);
  for (int round = 0; round < 10; ++round) {
    compare_xnor(twin, isa, random, comparison);
    compare_dot(twin, isa, random, comparison);
    for (int repeat = 0; repeat < 20; ++repeat) {
      compare_words(twin, isa, random, comparison);
      compare_layouts(twin, isa, random, comparison);
      compare_bytes(twin, isa, random, comparison);
      compare_tables(lookup, random, comparison);
    }
    compare_lookups(lookup, random, comparison);
  }
  comparison.report();
}

}  // namespace
}  // namespace edgetrain

// With arguments: the names that this processor must run, and no others.
int main(int argc, char** argv) {
  const std::vector<std::string> supported = edgetrain::supported_isas();
  std::string names;
  for (const std::string& name : supported) {
    names += name + " ";
    bool found = false;
    for (const edgetrain::MicroKernels* isa : edgetrain::built()) {
      if (name == isa->name) {
        edgetrain::compare(*isa);
        found = true;
      }
    }
    if (!found) {
      std::fprintf(stderr, "%s is not compared\n", name.c_str());
      return 1;
    }
  }
  const std::vector<std::string> wanted(argv + 1, argv + argc);
  if (argc > 1 && wanted != supported) {
    std::fprintf(stderr, "this processor runs: %s\n", names.c_str());
    return 1;
  }
  return 0;
}
