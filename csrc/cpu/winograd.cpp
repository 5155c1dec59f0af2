// Plain C++.
#include "floats_scalar.h"
#include "winograd_simd.h"

namespace liif {

void winograd_scalar(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  winograd_tiles<F32>(p, begin, end, scratch);
}

void winograd_gradient_scalar(const ConvolveGradientParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch,
                              float* sum) {
  winograd_gradient<Floats>(p, begin, end, scratch, sum);
}

}  // namespace liif
