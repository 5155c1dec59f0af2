// AVX2.
#include "floats_avx2.h"
#include "winograd_simd.h"

namespace liif {

void winograd_avx2(const ConvolveParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch) {
  winograd_tiles<F32>(p, begin, end, scratch);
}

void winograd_gradient_avx2(const ConvolveGradientParams& p, int64_t begin, int64_t end, const WinogradScratch& scratch,
                            float* sum) {
  winograd_gradient<Floats>(p, begin, end, scratch, sum);
}

}  // namespace liif
