// The part of JobTable that keeps the blocks of jobs.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "ndpipe/base/bytes.h"
#include "ndpipe/rpc/store_link.h"
#include "ndpipe/tuner/job_table.h"

namespace ndpipe::tuner {
namespace {

// 37 bytes a sample: id, class index, 1 for an evaluation photo.
constexpr size_t kSampleBytes = sizeof(Hash256) + sizeof(int32_t) + 1;

std::vector<uint8_t> PackSamples(std::span<const Sample> samples) {
  ByteWriter writer;
  for (const auto& sample : samples) {
    writer.WriteBytes(sample.id.bytes);
    writer.Write<int32_t>(sample.class_index);
    writer.Write<uint8_t>(static_cast<uint8_t>(sample.use));
  }
  return writer.Take();
}

Result<std::vector<Sample>> UnpackSamples(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  std::vector<Sample> samples(bytes.size() / kSampleBytes);
  for (auto& sample : samples) {
    NDP_ASSIGN(const auto id, reader.ReadBytes(sizeof(Hash256)));
    std::memcpy(sample.id.bytes.data(), id.data(), id.size());
    NDP_ASSIGN(sample.class_index, reader.Read<int32_t>());
    NDP_ASSIGN(const auto use, reader.Read<uint8_t>());
    sample.use = static_cast<SampleUse>(std::min<uint8_t>(use, 2));
  }
  return samples;
}

}  // namespace

const Holder* Block::Find(const std::string& store) const {
  const auto found = std::ranges::find(holders, store, &Holder::store);
  return found == holders.end() ? nullptr : &*found;
}

const std::vector<int64_t>& Block::PhotosIn(const std::string& store) const {
  const Holder* holder = Find(store);
  NDP_CHECK(holder != nullptr);
  return holder->photos;
}

Status JobTable::InsertBlocks(int64_t job, std::span<const Block> blocks) {
  for (const auto& block : blocks) {
    NDP_RETURN_IF_ERROR(db_.Run(
        "INSERT INTO block (job, block, run, done_by, samples, views) VALUES (?1, ?2, ?3, '', ?4, "
        "?5)",
        job, block.number, block.run, std::span<const uint8_t>(PackSamples(block.samples)),
        block.views));
    for (const auto& holder : block.holders) {
      NDP_RETURN_IF_ERROR(db_.Run(
          "INSERT INTO block_holder (job, block, store, photos) VALUES (?1, ?2, ?3, ?4)", job,
          block.number, holder.store, std::span<const uint8_t>(PackNumbers(holder.photos))));
    }
  }
  return {};
}

Status JobTable::AddBlocks(int64_t job, const std::string& plan, std::span<const Block> blocks) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  NDP_RETURN_IF_ERROR(db_.Run("UPDATE job SET plan = ?2 WHERE id = ?1", job, plan));
  NDP_RETURN_IF_ERROR(InsertBlocks(job, blocks));
  return transaction.Commit();
}

Status JobTable::ReplaceBlocks(int64_t job, std::span<const int64_t> removed,
                               std::span<const Block> blocks, std::span<const Hash256> lacking) {
  std::lock_guard lock(mutex_);
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  for (const int64_t number : removed) {
    NDP_RETURN_IF_ERROR(
        db_.Run("DELETE FROM block WHERE job = ?1 AND block = ?2 AND done = 0", job, number));
    if (db_.Changes() == 0) continue;
    NDP_RETURN_IF_ERROR(
        db_.Run("DELETE FROM block_holder WHERE job = ?1 AND block = ?2", job, number));
  }
  NDP_RETURN_IF_ERROR(InsertBlocks(job, blocks));
  for (const auto& photo : lacking) {
    NDP_RETURN_IF_ERROR(db_.Run("INSERT OR IGNORE INTO store_lack (job, photo) VALUES (?1, ?2)",
                                job, std::span<const uint8_t>(photo.bytes)));
  }
  return transaction.Commit();
}

Result<std::vector<Block>> JobTable::LoadBlocks(int64_t job) {
  std::lock_guard lock(mutex_);
  std::vector<Block> blocks;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT block, run, done_by, done, failed, feature_bytes, photo_bytes, from_features, views "
      "FROM block WHERE job = ?1 ORDER BY block",
      [&](const sqlite::Statement& row) {
        Block block;
        block.number = row.Int(0);
        block.run = row.Int(1);
        block.done_by = row.Text(2);
        block.done = row.Int(3) != 0;
        block.failed = row.Int(4);
        block.feature_bytes = row.Int(5);
        block.photo_bytes = row.Int(6);
        block.from_features = row.Int(7);
        block.views = static_cast<int>(std::clamp<int64_t>(row.Int(8), 1, rpc::kMaxViews));
        blocks.push_back(std::move(block));
      },
      job));
  NDP_RETURN_IF_ERROR(LoadHolders(job, blocks));
  return blocks;
}

// `blocks` by number.
Status JobTable::LoadHolders(int64_t job, std::vector<Block>& blocks) {
  Status read;
  size_t at = 0;
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT block, store, photos FROM block_holder WHERE job = ?1 ORDER BY block, store",
      [&](const sqlite::Statement& row) {
        while (at < blocks.size() && blocks[at].number < row.Int(0)) ++at;
        if (at == blocks.size() || blocks[at].number != row.Int(0)) return;
        auto photos = UnpackNumbers(row.Blob(2), rpc::kMaxPhotosPerBlock);
        if (!photos) {
          read = Fail(ErrorCode::kDataLoss, photos.error().message);
          return;
        }
        blocks[at].holders.push_back({row.Text(1), *std::move(photos)});
      },
      job));
  for (const auto& block : blocks) {
    const bool is_whole = (block.done ? block.IsIn(block.done_by) : block.num_photos() > 0) &&
                          std::ranges::all_of(block.holders, [&](const Holder& holder) {
                            return std::ssize(holder.photos) == block.num_photos();
                          });
    if (!read || is_whole) continue;
    read =
        Fail(ErrorCode::kDataLoss, fmt::format("the stores of block {} are damaged", block.number));
  }
  if (!read) return std::unexpected(std::move(read).error().Within("jobs.db"));
  return {};
}

Result<std::vector<Sample>> JobTable::LoadSamples(int64_t job, int64_t block) {
  std::lock_guard lock(mutex_);
  Result<std::vector<Sample>> samples =
      Fail(ErrorCode::kNotFound, fmt::format("job {} has no block {}", job, block));
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT samples FROM block WHERE job = ?1 AND block = ?2",
      [&](const sqlite::Statement& row) { samples = UnpackSamples(row.Blob(0)); }, job, block));
  return samples;
}

Status JobTable::MarkBlock(int64_t job, const Block& block, double extract_seconds,
                           const Block* elsewhere) {
  std::lock_guard lock(mutex_);
  return UpdateBlock(job, block, extract_seconds, elsewhere);
}

Status JobTable::MarkLabelled(int64_t job, const Block& block, double extract_seconds,
                              const Block* elsewhere) {
  std::lock_guard lock(mutex_);
  NDP_RETURN_IF_ERROR(db_.Execute("PRAGMA synchronous=NORMAL"));
  auto updated = UpdateBlock(job, block, extract_seconds, elsewhere);
  // Everything else that this table says is durable.
  NDP_RETURN_IF_ERROR(db_.Execute("PRAGMA synchronous=FULL"));
  return updated;
}

// In a transaction. The samples go with their photos.
Status JobTable::SplitBlock(int64_t job, const Block& block, const Block& elsewhere) {
  std::vector<int64_t> photos;  // of the whole block, in the store that delivered it
  Result<std::vector<Sample>> samples = std::vector<Sample>();
  NDP_RETURN_IF_ERROR(db_.Query(
      "SELECT h.photos, b.samples FROM block b JOIN block_holder h ON h.job = b.job AND h.block = "
      "b.block WHERE b.job = ?1 AND b.block = ?2 AND h.store = ?3",
      [&](const sqlite::Statement& row) {
        samples = UnpackSamples(row.Blob(1));
        if (auto numbers = UnpackNumbers(row.Blob(0), rpc::kMaxPhotosPerBlock)) {
          photos = *std::move(numbers);
        }
      },
      job, block.number, block.done_by));
  if (!samples) return std::unexpected(std::move(samples).error().Within("jobs.db"));
  const std::set<int64_t> kept(block.PhotosIn(block.done_by).begin(),
                               block.PhotosIn(block.done_by).end());
  std::vector<Block> both = {block, elsewhere};
  for (auto& part : both) part.samples.clear();
  for (size_t i = 0; i < samples->size() && i < photos.size(); ++i) {
    both[kept.contains(photos[i]) ? 0 : 1].samples.push_back((*samples)[i]);
  }
  for (const char* table : {"block", "block_holder"}) {
    NDP_RETURN_IF_ERROR(db_.Run(fmt::format("DELETE FROM {} WHERE job = ?1 AND block = ?2", table),
                                job, block.number));
  }
  return InsertBlocks(job, both);
}

Status JobTable::UpdateBlock(int64_t job, const Block& block, double extract_seconds,
                             const Block* elsewhere) {
  NDP_ASSIGN(auto transaction, sqlite::Transaction::Begin(db_));
  if (elsewhere != nullptr) NDP_RETURN_IF_ERROR(SplitBlock(job, block, *elsewhere));
  NDP_RETURN_IF_ERROR(
      db_.Run("UPDATE block SET done = ?3, failed = ?4, feature_bytes = ?5, photo_bytes = ?6, "
              "from_features = ?7, done_by = ?8 WHERE job = ?1 AND block = ?2",
              job, block.number, block.done, block.failed, block.feature_bytes, block.photo_bytes,
              block.from_features, block.done ? block.done_by : std::string()));
  NDP_RETURN_IF_ERROR(
      db_.Run("UPDATE job SET extract_seconds = ?2 WHERE id = ?1", job, extract_seconds));
  return transaction.Commit();
}

}  // namespace ndpipe::tuner
