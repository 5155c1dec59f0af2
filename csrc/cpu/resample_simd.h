// The resampler's inner loops over a vector type V of floats, whose lanes are output pixels. V has what floats_*.h have, and:
//   min(a, b), where NaN in b stays; sums(taps, first, fine, line): lane j is the sum of the kTaps products
//   taps[j] . line[first[j] - fine]: each of the first half fused with its fellow of the second, then neighbours, then the two
//   that are left; store_bytes(out, r, g, b): kLanes pixels, interleaved; and what resample_cells.h asks for.
//
// A pixel is the same bits whichever way it is summed, so that it does not matter where a tile begins.
#pragma once

#include "resample_cells.h"

namespace liif {
namespace {

template <class V>
struct Vectors {
  using Reg = typename V::Reg;
  static constexpr int L = V::kLanes;

  // Outputs that lie as the fine columns do, enough of them: see resample_cells.h.
  static bool sorted(const Part& part) { return part.even.end - part.even.begin >= kFactor * L; }

  static Part part(const ResampleParams& p, int64_t left) {
    Part part = part_from(p, left);
    if (part.right == p.x.size || part.right - left <= L) return part;
    // Whole vectors, or whole cells of a run that goes on; the rest begins the next strip.
    if (!sorted(part)) {
      part.right -= (part.right - left) % L;
    } else if (part.even.end == part.right) {
      part.right -= (part.even.end - part.even.begin) % kFactor;
    }
    if (part.even.end > part.right) part.even.end = part.right;
    return part;
  }

  template <class Elem>
  static void split_row(const ResampleParams& p, const Part& part, int64_t row, float (*out)[3][kStrip]) {
    sorted(part) ? Cells<V>::template split_row<Elem>(p, part, row, out) : liif::split_row<Elem>(p, part, row, out);
  }

  // Taps that are their own mirror image and leave out the last line: nearly all at x4.
  static bool mirrored(const float* taps) {
    static_assert(kTaps == 8, "four pairs but for one line");
    return taps[7] == 0 && taps[0] == taps[6] && taps[1] == taps[5] && taps[2] == taps[4];
  }

  static bool together(const TapTable& y, int64_t i) {
    const float* taps = y.taps + i * kTaps;
    return y.first[i + 1] == y.first[i] + 1 && mirrored(taps) && std::memcmp(taps, taps + kTaps, kTaps * sizeof(float)) == 0;
  }

  static void add_rows(const Part& part, const float* const* rows, const float* taps, int64_t count, float* const* out) {
    const int64_t cells = part.to - part.from, length = kFactor * (sorted(part) ? Cells<V>::pitch(cells) : cells);
    Reg tap[kTaps];
    for (int k = 0; k < kTaps; ++k) tap[k] = V::set1(taps[k]);
    if (mirrored(taps)) return count == 2 ? add_mirrored<2>(rows, tap, length, out) : add_mirrored<1>(rows, tap, length, out);
    // A strip's length is a multiple of every vector's, so the last may run past its end.
    for (int64_t x = 0; x < length; x += L) {
      Reg sum = V::set1(0);
      for (int k = 0; k < kTaps; ++k) sum = V::fma(tap[k], V::load(rows[k] + x), sum);
      V::store(out[0] + x, sum);
    }
  }

  template <int N>
  static void add_mirrored(const float* const* rows, const Reg* tap, int64_t length, float* const* out) {
    for (int64_t x = 0; x < length; x += L) {
      Reg line[kTaps + N - 2];
#pragma GCC unroll 8
      for (int k = 0; k < kTaps + N - 2; ++k) line[k] = V::load(rows[k] + x);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        Reg sum = V::mul(tap[3], line[n + 3]);
        for (int k = 0; k < 3; ++k) sum = V::fma(tap[k], V::add(line[n + k], line[n + 6 - k]), sum);
        V::store(out[n] + x, sum);
      }
    }
  }

  static void columns(const ResampleParams& p, const Part& part, int64_t row, const float (*sum)[kStrip]) {
    if (!sorted(part)) return apart(p, row, part.left, part.right, part.fine(), sum);
    const Run even{part.even.begin, part.even.end - (part.even.end - part.even.begin) % kFactor};
    float line[3][kStrip];
    const auto rest = [&](int64_t from, int64_t to) {
      if (from == to) return;
      const int64_t fine = p.x.first[from];
      Cells<V>::unsort(part, fine - part.fine(), p.x.first[to - 1] + kTaps - fine, sum, line);
      apart(p, row, from, to, fine, line);
    };
    rest(part.left, even.begin);
    Cells<V>::columns(p, part, even, sum, [&](int64_t j, Reg(*rgb)[3]) { store(p.out, row, j, rgb); });
    rest(even.end, part.right);
  }

  static void apart(const ResampleParams& p, int64_t row, int64_t begin, int64_t end, int64_t fine, const float (*sum)[kStrip]) {
    for (int64_t j = begin; j < end; j += L) {
      const int count = end - j < L ? static_cast<int>(end - j) : L;
      const float* taps = p.x.taps + j * kTaps;
      const int32_t* first = p.x.first + j;
      alignas(64) float own[L * kTaps];
      int32_t own_first[L];
      if (count < L) {  // the last again and again
        for (int i = 0; i < L; ++i) {
          const int at = i < count ? i : count - 1;
          own_first[i] = first[at];
          std::memcpy(own + i * kTaps, taps + at * kTaps, kTaps * sizeof(float));
        }
        taps = own, first = own_first;
      }
      Reg rgb[3];
      for (int c = 0; c < 3; ++c) rgb[c] = V::sums(taps, first, fine, sum[c]);
      store(p.out, row, j, count, rgb);
    }
  }

  static bool bytes(const Pixels& to) {
    return to.type == Type::u8 && to.low <= 0 && to.high <= 255 && to.channel_stride == 1 && to.column_stride == 3;
  }

  // Storing bytes cuts off what is below them, and what is above but for what no integer holds.
  static void scale(const Pixels& to, Reg* rgb) {
    for (int c = 0; c < 3; ++c) rgb[c] = V::min(V::set1(to.high), V::fma(rgb[c], V::set1(to.scale[c]), V::set1(to.shift[c])));
  }

  // Output columns [j, j + count) of a row, at most kLanes.
  static void store(const Pixels& to, int64_t row, int64_t j, int count, Reg* rgb) {
    if (count == L && bytes(to)) {
      scale(to, rgb);
      V::store_bytes(static_cast<uint8_t*>(to.data) + row * to.row_stride + 3 * j, rgb[0], rgb[1], rgb[2]);
      return;
    }
    float planes[3][L];
    for (int c = 0; c < 3; ++c) V::store(planes[c], rgb[c]);
    store_pixels(to, row, j, count, planes);
  }

  // The same of kFactor columns a lane.
  static void store(const Pixels& to, int64_t row, int64_t j, Reg (*rgb)[3]) {
    if (bytes(to)) {
      for (int d = 0; d < kFactor; ++d) scale(to, rgb[d]);
      return V::store_cells(static_cast<uint8_t*>(to.data) + row * to.row_stride + 3 * j, rgb);
    }
    float planes[3][kFactor * L], lanes[kFactor][L];
    for (int c = 0; c < 3; ++c) {
      for (int d = 0; d < kFactor; ++d) V::store(lanes[d], rgb[d][c]);
      for (int i = 0; i < L; ++i) {
        for (int d = 0; d < kFactor; ++d) planes[c][kFactor * i + d] = lanes[d][i];
      }
    }
    store_pixels(to, row, j, kFactor * L, planes);
  }
};

}  // namespace
}  // namespace liif
