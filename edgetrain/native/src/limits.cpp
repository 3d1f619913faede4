#include "edgetrain/limits.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "edgetrain/isa.hpp"
#include "edgetrain/thread_pool.hpp"

namespace edgetrain {

namespace {

using Clock = std::chrono::steady_clock;

// Rows, panel and sums fill most of the 32 kB that the smallest of today's caches has.
constexpr std::size_t rows = 16;
constexpr std::size_t row_bytes = 512;
constexpr std::size_t calls = 16;
constexpr std::chrono::milliseconds patience{5};

struct Operands {
  std::vector<std::uint32_t> rows;
  std::vector<std::uint32_t> panel;
  std::vector<std::int32_t> sums;

  Operands()
      : rows(edgetrain::rows * row_bytes / 4, 0x5A3C96E1U),
        panel(row_bytes * lanes / 4, 0x3CA5691EU),
        sums(edgetrain::rows * lanes) {}
};

// Seconds of one call: the fastest of many short runs, so that whoever interrupts does not count.
template <class Call>
double fastest(const Call& call) {
  auto best = Clock::duration::max();
  const auto begun = Clock::now();
  while (Clock::now() - begun < patience) {
    const auto start = Clock::now();
    for (std::size_t i = 0; i < calls; ++i) {
      call();
    }
    best = std::min(best, Clock::now() - start);
  }
  return std::chrono::duration<double>(best).count() / static_cast<double>(calls);
}

Limits limits_of_one(const Kernels& kernels) {
  Operands operands;
  constexpr std::int32_t initial[lanes] = {};
  const ByteRows bytes = {reinterpret_cast<const std::uint8_t*>(operands.rows.data()), row_bytes,
                          4};
  const auto* panel = reinterpret_cast<const std::int8_t*>(operands.panel.data());
  const double dot = fastest([&] {
    kernels.dot(bytes, rows, panel, row_bytes / 4, initial, 1, false, operands.sums.data(), lanes);
  });
  const double xnor = fastest([&] {
    kernels.xnor(operands.rows.data(), row_bytes / 4, row_bytes / 4, rows, operands.panel.data(), 0,
                 false, operands.sums.data());
  });
  constexpr auto products = static_cast<double>(rows * row_bytes * lanes);
  return {products / dot, 8 * products / xnor};
}

}  // namespace

Limits measure_limits(const std::string& isa, std::size_t threads) {
  const Kernels& kernels = select_kernels(isa);
  std::vector<Limits> found(threads);
  ThreadPool(threads).run(
      threads, [&](std::size_t task, std::size_t) { found[task] = limits_of_one(kernels); });
  Limits total{};
  for (const Limits& limits : found) {
    total.dot += limits.dot;
    total.xnor += limits.xnor;
  }
  return total;
}

}  // namespace edgetrain
