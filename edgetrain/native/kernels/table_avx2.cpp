#include "edgetrain/isa.hpp"
#include "isa/avx2.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& avx2_kernels() {
  static constexpr Kernels table = make_table<Avx2>();
  return table;
}

}  // namespace edgetrain
