// The rounding kernels as torch operators, torch.ops.clipq_native.*: checks, then a launch.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <string>

#include "rounding.h"

namespace {

using at::Tensor;
using std::optional;

// Numbers as text without a stream: a compiler that links its own copy of the C++ library into this
// one leaves the locale of the streams here without facets, and a number written there ends the
// process.
std::string text(int64_t number) { return std::to_string(number); }

std::string text(at::IntArrayRef sizes) {
  std::string shown = "[";
  for (const auto size : sizes) shown += (shown.size() > 1 ? ", " : "") + std::to_string(size);
  return shown + "]";
}

clipq::Kind kind_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return clipq::Kind::float32;
    case at::kHalf: return clipq::Kind::float16;
    case at::kBFloat16: return clipq::Kind::bfloat16;
    default:
      TORCH_CHECK(false, "x is ", c10::toString(x.scalar_type()),
                  "; allowed: float32, float16, bfloat16");
  }
}

int64_t groups_of(const Tensor& x, optional<int64_t> group) {
  TORCH_CHECK(x.dim() > 0, "a tensor without dimensions; give at least one, (..., K)");
  TORCH_CHECK(!group || *group > 0, "group size ", text(group.value_or(0)), " is not positive");
  return group ? (x.size(-1) + *group - 1) / *group : 1;
}

void check_grid(const Tensor& x, const char* what, const Tensor& part, int64_t groups, bool grouped) {
  TORCH_CHECK(part.scalar_type() == at::kFloat, what, " is ", c10::toString(part.scalar_type()),
              "; allowed: float32");
  TORCH_CHECK(part.device() == x.device(), what, " is on ", part.device().str(),
              ", x on ", x.device().str());
  auto wanted = x.sizes().vec();
  wanted.back() = groups;
  TORCH_CHECK(part.sizes() == at::IntArrayRef(wanted) || (part.numel() == 1 && !grouped), what,
              " has shape ", text(part.sizes()), "; allowed: ", text(wanted),
              grouped ? "" : " or one value");
}

Tensor rounded(const Tensor& x, const Tensor& scale, const optional<Tensor>& zero_point,
               int64_t low, int64_t high, optional<int64_t> group, bool codes) {
  const auto kind = kind_of(x);
  const int64_t groups = groups_of(x, group);
  check_grid(x, "scale", scale, groups, group.has_value());
  if (zero_point) {
    check_grid(x, "zero point", *zero_point, groups, group.has_value());
    TORCH_CHECK(zero_point->sizes() == scale.sizes(), "zero point has shape ",
                text(zero_point->sizes()), ", scale ", text(scale.sizes()));
  }
  const bool is_signed = -128 <= low && high <= 127;
  TORCH_CHECK(low <= high && (is_signed || (0 <= low && high <= 255)), "codes from ",
              text(low), " to ", text(high), " fit no 8-bit integer");
  const auto dtype = codes ? (is_signed ? at::kChar : at::kByte) : x.scalar_type();
  const Tensor flat = x.contiguous(), scales = scale.contiguous();
  const Tensor zeros = zero_point ? zero_point->contiguous() : Tensor();
  Tensor out = at::empty(x.sizes(), x.options().dtype(dtype));
  if (out.numel() == 0) return out;
  const c10::cuda::CUDAGuard guard(x.device());
  const clipq::Static given = {
      flat.const_data_ptr(),
      scales.const_data_ptr<float>(),
      zero_point ? zeros.const_data_ptr<float>() : nullptr,
      out.mutable_data_ptr(),
      x.numel() / x.size(-1),
      x.size(-1),
      group.value_or(x.size(-1)),
      scale.numel() == 1 ? 0 : groups,
      static_cast<float>(low),
      static_cast<float>(high),
  };
  const auto mode =
      codes ? (is_signed ? clipq::Mode::int8 : clipq::Mode::uint8) : clipq::Mode::fake;
  C10_CUDA_CHECK(clipq::round_static(given, kind, mode, c10::cuda::getCurrentCUDAStream()));
  return out;
}

Tensor quantize(const Tensor& x, const Tensor& scale, const optional<Tensor>& zero_point,
                int64_t low, int64_t high, optional<int64_t> group) {
  return rounded(x, scale, zero_point, low, high, group, true);
}

Tensor fake_quantize(const Tensor& x, const Tensor& scale, const optional<Tensor>& zero_point,
                     int64_t low, int64_t high, optional<int64_t> group) {
  return rounded(x, scale, zero_point, low, high, group, false);
}

Tensor fake_quantize_dynamic(const Tensor& x, int64_t bits, bool asymmetric,
                             optional<int64_t> group) {
  const auto kind = kind_of(x);
  const int64_t groups = groups_of(x, group);
  TORCH_CHECK(2 <= bits && bits <= 8, text(bits), " bits; choose 2 to 8");
  const Tensor flat = x.contiguous();
  Tensor out = at::empty(x.sizes(), x.options());
  if (out.numel() == 0) return out;
  const c10::cuda::CUDAGuard guard(x.device());
  const clipq::Dynamic given = {
      flat.const_data_ptr(),
      out.mutable_data_ptr(),
      x.numel() / x.size(-1),
      x.size(-1),
      group.value_or(x.size(-1)),
      groups,
      static_cast<float>((1 << bits) - 1),
      asymmetric,
  };
  C10_CUDA_CHECK(clipq::round_dynamic(given, kind, c10::cuda::getCurrentCUDAStream()));
  return out;
}

}  // namespace

TORCH_LIBRARY(clipq_native, m) {
  m.def("quantize(Tensor x, Tensor scale, Tensor? zero_point, int low, int high, int? group=None) -> Tensor");
  m.def("fake_quantize(Tensor x, Tensor scale, Tensor? zero_point, int low, int high, int? group=None) -> Tensor");
  m.def("fake_quantize_dynamic(Tensor x, int bits, bool asymmetric=False, int? group=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(clipq_native, CUDA, m) {
  m.impl("quantize", &quantize);
  m.impl("fake_quantize", &fake_quantize);
  m.impl("fake_quantize_dynamic", &fake_quantize_dynamic);
}
