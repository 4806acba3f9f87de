#include "ndpipe/tuner/feature_spool.h"

#include <fmt/format.h>

#include <cstring>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"

namespace ndpipe::tuner {
namespace {

constexpr std::string_view kMagic = "NDPFEAT1";
constexpr std::string_view kViewsMagic = "NDPFEAT2";  // says how many views a photo has
constexpr size_t kMaxFileBytes = size_t{16} << 20;

std::unexpected<Error> Damaged(const std::filesystem::path& file, const std::string& reason) {
  return Fail(ErrorCode::kDataLoss, fmt::format("feature block {}: {}", file.string(), reason));
}

}  // namespace

std::filesystem::path FeatureSpool::File(int64_t run, int64_t block) const {
  return folder_ / fmt::format("{:04d}-{:08d}.features", run, block);
}

Status FeatureSpool::Create() {
  NDP_RETURN_IF_ERROR(MakeFolders(folder_));
  RemoveUnfinished(folder_);
  // Features that training had in files lose their names once these are written.
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    std::error_code ignored;  // what stays goes with the job
    if (name.starts_with("slice-") || name == kCollectedSlice) {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
  return {};
}

Status FeatureSpool::Write(const rpc::FeatureBlock& block) {
  ByteWriter writer;
  writer.WriteBytes(AsBytes(block.views == 1 ? kMagic : kViewsMagic));
  writer.WriteBytes(block.feature_space.bytes);
  writer.Write<int64_t>(block.run);
  writer.Write<int64_t>(block.block);
  writer.Write<int64_t>(block.feature_size);
  if (block.views != 1) {
    writer.Write<int64_t>(block.views);
    writer.Write<int64_t>(block.view_rule);
  }
  const auto photos = PackNumbers(block.photos);
  writer.Write<uint32_t>(static_cast<uint32_t>(block.photos.size()));
  writer.Write<uint32_t>(static_cast<uint32_t>(photos.size()));
  writer.WriteBytes(photos);
  writer.WriteBytes({reinterpret_cast<const uint8_t*>(block.features.data()),
                     block.features.size() * sizeof(Half)});
  writer.Write<uint32_t>(Crc32(writer.bytes()));
  return WriteFileDurably(File(block.run, block.block), writer.bytes());
}

Result<rpc::FeatureBlock> FeatureSpool::Read(int64_t run, int64_t block,
                                             const Hash256& feature_space) const {
  const auto file = File(run, block);
  NDP_ASSIGN(const auto bytes, ReadFile(file, kMaxFileBytes));
  if (bytes.size() < kMagic.size() + sizeof(uint32_t)) return Damaged(file, "it is cut short");
  const std::span<const uint8_t> body(bytes.data(), bytes.size() - sizeof(uint32_t));
  uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + body.size(), sizeof crc);
  if (Crc32(body) != crc) return Damaged(file, "its CRC is wrong");

  ByteReader reader(body);
  NDP_ASSIGN(const auto magic, reader.ReadBytes(kMagic.size()));
  const bool has_views = AsText(magic) == kViewsMagic;
  if (!has_views && AsText(magic) != kMagic) return Damaged(file, "it is no feature block");
  rpc::FeatureBlock read;
  NDP_ASSIGN(const auto space, reader.ReadBytes(sizeof(Hash256)));
  NDP_ASSIGN(read.feature_space, Hash256::FromBytes(space));
  NDP_ASSIGN(read.run, reader.Read<int64_t>());
  NDP_ASSIGN(read.block, reader.Read<int64_t>());
  NDP_ASSIGN(read.feature_size, reader.Read<int64_t>());
  if (read.feature_space != feature_space || read.run != run || read.block != block) {
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("feature block {} is of another feature space or place", file.string()));
  }
  if (has_views) {
    NDP_ASSIGN(const auto views, reader.Read<int64_t>());
    if (views < 1 || views > rpc::kMaxViews) return Damaged(file, "it has an absurd view count");
    read.views = static_cast<int>(views);
    NDP_ASSIGN(read.view_rule, reader.Read<int64_t>());
  }
  NDP_ASSIGN(const auto count, reader.Read<uint32_t>());
  NDP_ASSIGN(const auto packed_bytes, reader.Read<uint32_t>());
  NDP_ASSIGN(const auto packed, reader.ReadBytes(packed_bytes));
  NDP_ASSIGN(read.photos, UnpackNumbers(packed, rpc::kMaxPhotosPerBlock));
  const size_t feature_bytes = reader.remaining();
  if (read.photos.size() != count || read.feature_size <= 0 ||
      read.feature_size > static_cast<int64_t>(kMaxFileBytes) ||
      feature_bytes != count * static_cast<size_t>(read.views * read.feature_size) * sizeof(Half)) {
    return Damaged(file, "its sizes do not fit each other");
  }
  NDP_ASSIGN(const auto features, reader.ReadBytes(feature_bytes));
  read.features.resize(feature_bytes / sizeof(Half));
  if (feature_bytes > 0) std::memcpy(read.features.data(), features.data(), feature_bytes);
  return read;
}

Status FeatureSpool::Remove() {
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
  if (error) {
    return Fail(ErrorCode::kInternal,
                fmt::format("cannot remove {}: {}", folder_.string(), error.message()));
  }
  return {};
}

}  // namespace ndpipe::tuner
