// The micro-kernels of one instruction set behind pointers, so that a test can compare two sets
// whose code must not meet in one translation unit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

// Products by table lookup.
struct LookupKernels {
  void (*sum_table)(const std::uint8_t*, const std::uint8_t*, std::int16_t*);
  void (*gather_bits)(const std::uint32_t*, std::size_t, const std::uint32_t*, std::size_t,
                      std::uint16_t*);
  void (*lookup_pixels)(const LookupTables&, std::size_t, const std::uint16_t*, std::size_t,
                        std::size_t, std::int32_t*);
  void (*lookup_outputs)(const LookupTables&, std::size_t, const std::uint16_t*, std::size_t,
                         std::size_t, std::size_t, std::int32_t*, std::size_t);
};

struct MicroKernels {
  const char* name;
  std::uint32_t (*sign_word)(const std::int8_t*);
  std::uint32_t (*at_least)(const std::int32_t*, const std::int32_t*);
  void (*xnor)(const std::uint32_t*, std::size_t, std::size_t, std::size_t, const std::uint32_t*,
               std::int32_t, bool, std::int32_t*);
  void (*dot)(const ByteRows&, std::size_t, const std::int8_t*, std::size_t, const std::int32_t*,
              std::int32_t, bool, std::int32_t*, std::size_t);
  // One a ByteForm, in the order of its values.
  void (*interleave[3])(const void*, std::size_t, std::int8_t*);
  void (*transpose[3])(const std::int8_t*, std::size_t, std::int8_t*);
  void (*update_latents)(std::int8_t*, const std::int32_t*, Key, std::uint32_t, std::uint32_t);
  void (*decode)(const std::uint8_t*, std::uint8_t*);
  // Null where the instruction set has no lookup.
  const LookupKernels* lookup;
};

struct Portable;
struct Avx2;
struct Avx512;
struct Neon;
struct NeonDot;

// Defined by micro_kernels.cpp, which is compiled once an instruction set.
template <class Isa>
const MicroKernels& micro_kernels();
template <>
const MicroKernels& micro_kernels<Portable>();
template <>
const MicroKernels& micro_kernels<Avx2>();
template <>
const MicroKernels& micro_kernels<Avx512>();
template <>
const MicroKernels& micro_kernels<Neon>();
template <>
const MicroKernels& micro_kernels<NeonDot>();

}  // namespace edgetrain
