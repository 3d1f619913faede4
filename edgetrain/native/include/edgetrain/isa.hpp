// Which kernel tables were built, which this processor can run, and which one to use.
#pragma once

#include <string>
#include <vector>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#elif defined(__aarch64__)
const Kernels& neon_kernels();
const Kernels& neon_dot_kernels();
#endif

// Names of the tables that this processor can run, slowest first.
std::vector<std::string> supported_isas();

// The table of that name, or the fastest for an empty one. Throws std::invalid_argument for a name
// that is unknown or that the processor cannot run.
const Kernels& select_kernels(const std::string& name);

}  // namespace edgetrain
