#include "ndpipe/engine/torch/tensors.h"

#include <ATen/ATen.h>

#include <cstring>
#include <utility>
#include <vector>

namespace ndpipe::engine::torch {
namespace {

constexpr std::pair<model::DataType, at::ScalarType> kTypes[] = {
    {model::DataType::kFloat, at::kFloat},   {model::DataType::kUint8, at::kByte},
    {model::DataType::kInt8, at::kChar},     {model::DataType::kInt16, at::kShort},
    {model::DataType::kInt32, at::kInt},     {model::DataType::kInt64, at::kLong},
    {model::DataType::kBool, at::kBool},     {model::DataType::kFloat16, at::kHalf},
    {model::DataType::kDouble, at::kDouble}, {model::DataType::kBfloat16, at::kBFloat16},
};

}  // namespace

std::optional<at::ScalarType> ScalarTypeOf(model::DataType type) {
  for (const auto& [ours, theirs] : kTypes) {
    if (ours == type) return theirs;
  }
  return std::nullopt;
}

model::DataType DataTypeOf(at::ScalarType type) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == type) return ours;
  }
  return model::DataType::kUndefined;
}

at::Tensor ToTorch(const model::Tensor& tensor) {
  const auto type = ScalarTypeOf(tensor.type);
  if (!type) return {};
  at::Tensor copy = at::empty(tensor.dims, *type);
  if (!tensor.bytes.empty()) {
    std::memcpy(copy.mutable_data_ptr(), tensor.bytes.data(), tensor.bytes.size());
  }
  return copy;
}

model::Tensor FromTorch(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().to(at::kCPU).contiguous();
  std::vector<uint8_t> bytes(dense.nbytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), dense.const_data_ptr(), bytes.size());
  return model::Tensor::Own(DataTypeOf(dense.scalar_type()), dense.sizes().vec(), std::move(bytes));
}

}  // namespace ndpipe::engine::torch
