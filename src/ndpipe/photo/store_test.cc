#include "ndpipe/photo/store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "ndpipe/base/bytes.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

class PhotoStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    auto store = PhotoStore::Open(folder_ / "store");
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
  }
  void TearDown() override { fs::remove_all(folder_); }

  int64_t Add(std::string_view bytes, const std::string& path) {
    const std::vector<NewPhoto> photos = {{.id = Sha256::Of(bytes),
                                           .path = path,
                                           .origin = "",
                                           .size_bytes = static_cast<int64_t>(bytes.size()),
                                           .labels = {}}};
    return store_->WithCatalog([&](Catalog& catalog) { return catalog.Add(photos); })
        .value()[0]
        .number;
  }
  static void Write(const fs::path& path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  CatalogCounts Counts() {
    return store_->WithCatalog([](Catalog& catalog) { return catalog.Counts(); }).value();
  }

  fs::path folder_ = fs::path(testing::TempDir()) / ("store_test." + std::to_string(::getpid()));
  std::unique_ptr<PhotoStore> store_;
};

TEST_F(PhotoStoreTest, CopiesAreReadBackAndMadeOnce) {
  const auto id = Sha256::Of("bytes");
  const auto path = store_->CopyIn(AsBytes("bytes"), id, ".jpg");
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(*path, "photos/" + id.Hex().substr(0, 2) + "/" + id.Hex() + ".jpg");
  const auto written = fs::last_write_time(store_->folder() / *path);
  EXPECT_EQ(*store_->CopyInUnsynced(AsBytes("bytes"), id, ".jpg"), *path);
  EXPECT_EQ(*store_->CopyIn(AsBytes("bytes"), id, ".jpg"), *path);
  EXPECT_EQ(fs::last_write_time(store_->folder() / *path), written);
  EXPECT_TRUE(store_->SyncCopies());
  EXPECT_EQ(AsText(*store_->Read(Add("bytes", *path))), "bytes");
  EXPECT_TRUE(fs::is_empty(store_->folder() / "photos/.incoming"));
}

TEST_F(PhotoStoreTest, ADamagedCopyIsReplacedByTheNextImport) {
  const auto id = Sha256::Of("bytes");
  const auto path = *store_->CopyIn(AsBytes("bytes"), id, ".jpg");
  const int64_t number = Add("bytes", path);
  Write(store_->folder() / path, "bytez");
  EXPECT_EQ(store_->Read(number).error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(store_->Read(number).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Counts().missing, 1);
  EXPECT_EQ(*store_->CopyInUnsynced(AsBytes("bytes"), id, ".jpg"), path);
  EXPECT_EQ(Add("bytes", path), number);
  EXPECT_EQ(AsText(*store_->Read(number)), "bytes");
  Write(store_->folder() / path, "byt");
  EXPECT_EQ(*store_->CopyIn(AsBytes("bytes"), id, ".jpg"), path);
  EXPECT_EQ(AsText(*store_->Read(number)), "bytes");
}

TEST_F(PhotoStoreTest, ReadGoesOnToAnotherLocation) {
  const std::string first = folder_ / "first.jpg";
  const std::string second = folder_ / "second.jpg";
  const std::string third = folder_ / "third.jpg";
  const int64_t number = Add("bytes", first);
  Add("bytes", second);
  Add("bytes", third);
  Write(second, "other");
  Write(third, "bytes");
  EXPECT_EQ(AsText(*store_->Read(number)), "bytes");
  EXPECT_EQ(Counts().locations, 1);
  const auto changes =
      *store_->WithCatalog([](Catalog& catalog) { return catalog.ReadChanges(3, 10); });
  ASSERT_EQ(changes.size(), 2U);
  EXPECT_EQ(changes[0].kind, ChangeKind::kMissing);
  EXPECT_EQ(changes[0].path, first);
  EXPECT_EQ(changes[1].kind, ChangeKind::kChanged);
  EXPECT_EQ(changes[1].path, second);
  fs::remove(third);
  EXPECT_EQ(store_->Read(number).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store_->Read(number + 1).error().code, ErrorCode::kNotFound);
}

TEST_F(PhotoStoreTest, RefusesAbsurdFilesAndExtensions) {
  const std::string huge = folder_ / "huge.jpg";
  Write(huge, "x");
  fs::resize_file(huge, kMaxPhotoBytes + 1);  // sparse
  EXPECT_EQ(store_->Read(Add("bytes", huge)).error().code, ErrorCode::kResourceExhausted);
  for (const auto* extension : {"jpg", "./x", ".J", ".abcdefghij", "/"}) {
    EXPECT_EQ(store_->CopyIn(AsBytes("b"), Sha256::Of("b"), extension).error().code,
              ErrorCode::kInvalidArgument);
  }
}

TEST_F(PhotoStoreTest, SweepsWhatAKilledImportLeft) {
  const fs::path incoming = store_->folder() / "photos/.incoming";
  Write(incoming / "old", "x");
  Write(incoming / "new", "x");
  fs::last_write_time(incoming / "old", fs::file_time_type::clock::now() - std::chrono::hours(48));
  ASSERT_TRUE(PhotoStore::Open(folder_ / "store"));
  EXPECT_FALSE(fs::exists(incoming / "old"));
  EXPECT_TRUE(fs::exists(incoming / "new"));
}

TEST_F(PhotoStoreTest, DeletingRemovesTheCopyAndLeavesOtherFilesAlone) {
  const std::string original = folder_ / "original.jpg";
  Write(original, "bytes");
  const auto path = *store_->CopyIn(AsBytes("bytes"), Sha256::Of("bytes"), ".jpg");
  const int64_t number = Add("bytes", path);
  Add("bytes", original);
  const auto kept = *store_->CopyIn(AsBytes("kept"), Sha256::Of("kept"), ".jpg");
  Add("kept", kept);
  ASSERT_TRUE(store_->Delete(number));
  EXPECT_FALSE(fs::exists(store_->folder() / path));
  EXPECT_TRUE(fs::exists(store_->folder() / kept));
  EXPECT_TRUE(fs::exists(original));
  EXPECT_EQ(store_->Delete(number).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store_->Read(number).error().code, ErrorCode::kNotFound);
}

// As after a kill between the tombstone and the removal.
TEST_F(PhotoStoreTest, OpeningFinishesADeletion) {
  const auto path = *store_->CopyIn(AsBytes("bytes"), Sha256::Of("bytes"), ".jpg");
  const auto again = *store_->CopyIn(AsBytes("again"), Sha256::Of("again"), ".jpg");
  const std::vector<int64_t> numbers = {Add("bytes", path), Add("again", again)};
  for (const int64_t number : numbers) {
    ASSERT_TRUE(store_->WithCatalog([&](Catalog& catalog) { return catalog.Delete(number); }));
  }
  EXPECT_TRUE(fs::exists(store_->folder() / path));
  const int64_t back = Add("again", again);  // imported again in between
  store_ = *PhotoStore::Open(folder_ / "store");
  EXPECT_FALSE(fs::exists(store_->folder() / path));
  EXPECT_EQ(AsText(*store_->Read(back)), "again");
}

TEST_F(PhotoStoreTest, ACopyThatCannotBeRemovedIsTriedAgain) {
  const auto path = *store_->CopyIn(AsBytes("bytes"), Sha256::Of("bytes"), ".jpg");
  const int64_t number = Add("bytes", path);
  const fs::path file = store_->folder() / path;
  fs::remove(file);
  fs::create_directories(file / "in the way");  // a folder cannot be unlinked, not by root either
  const Status deleted = store_->Delete(number);
  ASSERT_FALSE(deleted);
  EXPECT_NE(deleted.error().message.find(path), std::string::npos);
  EXPECT_EQ(Counts().photos, 0);
  fs::remove_all(file);
  Write(file, "bytes");
  ASSERT_TRUE(PhotoStore::Open(folder_ / "store"));
  EXPECT_FALSE(fs::exists(file));
}

TEST_F(PhotoStoreTest, AFileInThePlaceOfTheFolderIsAClearError) {
  Write(folder_ / "file", "x");
  const auto store = PhotoStore::Open(folder_ / "file");
  ASSERT_FALSE(store);
  EXPECT_NE(store.error().message.find("file"), std::string::npos);
}

}  // namespace
}  // namespace ndpipe::photo
