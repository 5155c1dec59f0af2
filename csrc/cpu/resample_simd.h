// The resampler's inner loops over a vector type V of floats, whose lanes are output pixels. V has what floats_*.h have, and:
//   min(a, b), where NaN in b stays; sums(taps, first, fine, line): lane j is the sum of the kTaps products
//   taps[j] . line[first[j] - fine]: each of the first half fused with its fellow of the second, then neighbours, then the two
//   that are left; close(first): whether kLanes pixels lie so close that spread(line, first, out) can be: lane j of out[k] is
//   line[first[j] - first[0] + k], and it may read 3 * kLanes of `line`; store_bytes(out, r, g, b): kLanes pixels, interleaved;
//   fours(p, step): four floats from p, p + step, ... each; pieces(z, step, low, high): four elements of cell z each, of `step`
//   cells further, ..., and the next four of them; turn(v): 4 x 4 floats transposed, in every four lanes; and what
//   resample_cells.h asks for.
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
  static_assert(kFactor == 4 && kTaps == 8, "by fours");

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

  // Turns the taps of whole vectors of pixels: of L pixels each, first their taps 0, then their taps 1, ...
  static void begin(const ResampleParams& p, const Part& part, Strip& strip) {
    if (sorted(part)) return;
    float* out = strip.taps;
    const float *from = p.x.taps + part.left * kTaps, *end = p.x.taps + part.right * kTaps;
    for (; end - from >= L * kTaps; from += L * kTaps) {
      for (int half = 0; half < kTaps; half += 4, out += 4 * L) {
        Reg v[4];
        for (int i = 0; i < 4; ++i) v[i] = V::fours(from + i * kTaps + half, 4 * kTaps);
        V::turn(v);
        for (int i = 0; i < 4; ++i) V::store(out + i * L, v[i]);
      }
    }
  }

  template <class Elem>
  static void split_row(const ResampleParams& p, const Part& part, int64_t row, float (*out)[3][kStrip]) {
    if (sorted(part)) return Cells<V>::template split_row<Elem>(p, part, row, out);
    constexpr int kCells = L / kFactor;  // of a vector
    const int64_t inside = part.inside(p, row);
    const Elem* z = static_cast<const Elem*>(p.z) + row * p.z_row_stride + part.from * kFineChannels;
    for (int64_t cell = 0; cell < part.to - part.from; cell += kCells, z += kCells * kFineChannels) {
      alignas(64) Elem own[kCells * kFineChannels];
      const Elem* cells = whole_cells(z, inside - cell, kCells, own);
      for (int piece = 0; piece < 3 * kFactor; piece += 2) {
        Reg low, high;
        V::pieces(cells + piece * kFactor, 1, low, high);
        V::store(out[piece / 3][piece % 3] + cell * kFactor, low);
        V::store(out[(piece + 1) / 3][(piece + 1) % 3] + cell * kFactor, high);
      }
    }
  }

  // Taps that are their own mirror image and leave out the last line: nearly all at x4.
  static bool mirrored(const float* taps) {
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

  static void columns(const ResampleParams& p, const Part& part, int64_t row, const float (*sum)[kStrip], const Strip& strip) {
    if (!sorted(part)) return apart(p, row, part.left, part.right, part.fine(), sum, strip.taps);
    const Run even{part.even.begin, part.even.end - (part.even.end - part.even.begin) % kFactor};
    float line[3][kStrip];
    const auto rest = [&](int64_t from, int64_t to) {
      if (from == to) return;
      const int64_t fine = p.x.first[from];
      Cells<V>::unsort(part, fine - part.fine(), p.x.first[to - 1] + kTaps - fine, sum, line);
      apart(p, row, from, to, fine, line, nullptr);
    };
    rest(part.left, even.begin);
    Cells<V>::columns(p, part, even, sum, [&](int64_t j, Reg(*rgb)[3]) { store(p.out, row, j, rgb); });
    rest(even.end, part.right);
  }

  // `turned`: what `begin` made of the taps from column `begin` on, or null.
  static void apart(const ResampleParams& p, int64_t row, int64_t begin, int64_t end, int64_t fine, const float (*sum)[kStrip],
                    const float* turned) {
    for (int64_t j = begin; j < end; j += L) {
      const int count = end - j < L ? static_cast<int>(end - j) : L;
      const float* taps = p.x.taps + j * kTaps;
      const int32_t* first = p.x.first + j;
      Reg rgb[3];
      if (turned && count == L && V::close(first)) {
        for (int c = 0; c < 3; ++c) {
          Reg line[kTaps], lanes[kTaps];
          V::spread(sum[c] + (first[0] - fine), first, line);
          for (int k = 0; k < kTaps; ++k) lanes[k] = V::load(turned + (j - begin) * kTaps + k * L);
          rgb[c] = Cells<V>::dot(lanes, line);
        }
      } else {
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
        for (int c = 0; c < 3; ++c) rgb[c] = V::sums(taps, first, fine, sum[c]);
      }
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
