#include "edgetrain/isa.hpp"
#include "isa/neon.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& neon_kernels() {
  static constexpr Kernels table = make_table<Neon>();
  return table;
}

}  // namespace edgetrain
