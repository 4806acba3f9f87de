#include "ndpipe/photo/catalog.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>

#include "ndpipe/photo/key_tiers.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

NewPhoto MakePhoto(int seed, const std::string& path, std::vector<std::string> labels = {},
                   bool is_test = false) {
  return {.id = Sha256::Of("photo " + std::to_string(seed)),
          .path = path,
          .origin = "origin/" + path,
          .size_bytes = 1000 + seed,
          .modified_us = 17,
          .is_test = is_test,
          .labels = std::move(labels)};
}

// By value: what a range-for walks must outlive the Result that held it.
template <typename T>
T Value(Result<T> result) {
  return std::move(result).value();
}

class CatalogTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  Catalog Open() {
    auto catalog = Catalog::Open(file_);
    if (!catalog) throw std::runtime_error(catalog.error().message);
    return *std::move(catalog);
  }
  static AddOutcome AddOne(Catalog& catalog, const NewPhoto& photo) {
    auto outcomes = catalog.Add(std::span(&photo, 1));
    EXPECT_TRUE(outcomes) << outcomes.error().message;
    return outcomes ? outcomes->at(0) : AddOutcome{};
  }
  static std::vector<ChangeKind> Kinds(Catalog& catalog, int64_t after = 0) {
    std::vector<ChangeKind> kinds;
    for (const Change& change : Value(catalog.ReadChanges(after, 1'000'000))) {
      kinds.push_back(change.kind);
    }
    return kinds;
  }

  fs::path folder_ = fs::path(testing::TempDir()) / ("catalog_test." + std::to_string(::getpid()));
  fs::path file_ = folder_ / "catalog.db";
};

TEST_F(CatalogTest, AddingTwiceAddsOnce) {
  Catalog catalog = Open();
  const NewPhoto photo = MakePhoto(1, "photos/a.jpg", {"cat", "pet"});
  const AddOutcome first = AddOne(catalog, photo);
  EXPECT_TRUE(first.is_new_photo);
  EXPECT_TRUE(first.is_new_location);
  EXPECT_EQ(first.num_new_labels, 2);
  EXPECT_EQ(first.number, 1);
  const AddOutcome second = AddOne(catalog, photo);
  EXPECT_FALSE(second.is_new_photo);
  EXPECT_FALSE(second.is_new_location);
  EXPECT_EQ(second.num_new_labels, 0);
  EXPECT_EQ(*catalog.LastChange(), 3);
  EXPECT_EQ(*catalog.Counts(), (CatalogCounts{1, 1, 0, 1, 1001}));
  const auto changes = *catalog.ReadChanges(0, 10);
  EXPECT_EQ(changes[0].kind, ChangeKind::kAdded);
  EXPECT_EQ(changes[0].id, photo.id);
  EXPECT_EQ(changes[0].path, photo.path);
  EXPECT_EQ(changes[0].origin, photo.origin);
  EXPECT_EQ(changes[0].size_bytes, 1001);
  EXPECT_EQ(changes[0].modified_us, 17);
  EXPECT_EQ(changes[2].label, "pet");
}

TEST_F(CatalogTest, APhotoHasItsIdUntilItIsDeleted) {
  Catalog catalog = Open();
  const NewPhoto photo = MakePhoto(1, "a");
  AddOne(catalog, photo);
  EXPECT_EQ(*catalog.IdOf(1), photo.id);
  ASSERT_TRUE(catalog.MarkMissing(photo.path));
  EXPECT_EQ(*catalog.IdOf(1), photo.id) << "its sidecar may be there";
  ASSERT_TRUE(catalog.Delete(1));
  EXPECT_EQ(catalog.IdOf(1).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(catalog.IdOf(2).error().code, ErrorCode::kNotFound);
}

TEST_F(CatalogTest, OneSourceMakesATestPhotoEverywhere) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "a"));
  EXPECT_NE(*catalog.PartOf(1), Part::kTest);
  AddOne(catalog, MakePhoto(1, "a", {}, true));
  EXPECT_EQ(*catalog.PartOf(1), Part::kTest);
  AddOne(catalog, MakePhoto(1, "b"));
  EXPECT_EQ(*catalog.PartOf(1), Part::kTest);
  const auto changes = *catalog.ReadChanges(0, 10);
  ASSERT_EQ(changes.size(), 3U);
  EXPECT_EQ(changes[1].kind, ChangeKind::kAdded);
  EXPECT_EQ(changes[1].part, Part::kTest);
  EXPECT_EQ(changes[2].part, Part::kTest);
}

TEST_F(CatalogTest, LabelsThatDisagreeAreAllKept) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "a", {"cat"}));
  AddOne(catalog, MakePhoto(1, "b", {"dog", "cat"}));
  EXPECT_EQ(*catalog.SourceLabels(1), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(catalog.Counts()->labelled, 1);
  EXPECT_EQ(std::ranges::count(Kinds(catalog), ChangeKind::kSourceLabel), 2);
}

TEST_F(CatalogTest, ADeletedPhotoComesBackUnderANewNumber) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "a", {"cat"}));
  AddOne(catalog, MakePhoto(2, "b"));
  ASSERT_TRUE(catalog.Delete(1));
  EXPECT_EQ(catalog.Delete(1).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(catalog.Find(1).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(*catalog.NumberOf(MakePhoto(1, "a").id), std::nullopt);
  EXPECT_EQ(*catalog.Counts(), (CatalogCounts{1, 1, 0, 0, 1002}));
  const AddOutcome again = AddOne(catalog, MakePhoto(1, "a"));
  EXPECT_EQ(again.number, 3);
  EXPECT_TRUE(again.is_new_photo);
  EXPECT_TRUE(catalog.SourceLabels(3)->empty());
  EXPECT_EQ(*catalog.Numbers(0, 10), (std::vector<int64_t>{2, 3}));
  const auto changes = *catalog.ReadChanges(3, 10);
  EXPECT_EQ(changes[0].kind, ChangeKind::kDeleted);
  EXPECT_EQ(changes[0].id, changes[1].id);
  EXPECT_EQ(changes[1].number, 3);
}

TEST_F(CatalogTest, NumbersAreNotReusedAfterTheLastPhotoIsDeleted) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "a"));
  ASSERT_TRUE(catalog.Delete(1));
  EXPECT_EQ(AddOne(catalog, MakePhoto(2, "b")).number, 2);
}

TEST_F(CatalogTest, LocationsComeAndGo) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "/x/a"));
  AddOne(catalog, MakePhoto(1, "/x/b"));
  EXPECT_EQ(catalog.Find(1)->path, "/x/a");
  ASSERT_TRUE(catalog.MarkMissing("/x/a"));
  EXPECT_EQ(catalog.MarkMissing("/x/a").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(catalog.Find(1)->path, "/x/b");
  ASSERT_TRUE(catalog.Move("/x/b", "/x/a"));
  EXPECT_EQ(catalog.Find(1)->path, "/x/a");
  EXPECT_EQ(*catalog.FindPath("/x/b"), std::nullopt);
  ASSERT_TRUE(catalog.MarkChanged("/x/a"));
  EXPECT_EQ(*catalog.Counts(), (CatalogCounts{1, 0, 1, 0, 0}));
  EXPECT_TRUE(catalog.Numbers(0, 10)->empty());
  const AddOutcome back = AddOne(catalog, MakePhoto(1, "/x/a"));
  EXPECT_FALSE(back.is_new_photo);
  EXPECT_FALSE(back.is_new_location);
  EXPECT_EQ(*catalog.Counts(), (CatalogCounts{1, 1, 0, 0, 1001}));
  EXPECT_EQ(Kinds(catalog), (std::vector<ChangeKind>{ChangeKind::kAdded, ChangeKind::kAdded,
                                                     ChangeKind::kMissing, ChangeKind::kMoved,
                                                     ChangeKind::kChanged, ChangeKind::kAdded}));
}

TEST_F(CatalogTest, ANewPhotoTakesThePathOfTheOldOne) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "/x/a"));
  AddOne(catalog, MakePhoto(2, "/x/a"));
  EXPECT_EQ((*catalog.FindPath("/x/a"))->number, 2);
  EXPECT_EQ(*catalog.Counts(), (CatalogCounts{2, 1, 1, 0, 1002}));
  EXPECT_EQ(Kinds(catalog), (std::vector<ChangeKind>{ChangeKind::kAdded, ChangeKind::kChanged,
                                                     ChangeKind::kAdded}));
  EXPECT_EQ(catalog.Move("/x/b", "/x/c").error().code, ErrorCode::kNotFound);
  AddOne(catalog, MakePhoto(3, "/x/b"));
  EXPECT_EQ(catalog.Move("/x/b", "/x/a").error().code, ErrorCode::kAlreadyExists);
}

TEST_F(CatalogTest, ABadPhotoInABatchLeavesNothingBehind) {
  Catalog catalog = Open();
  for (const std::string& path :
       {std::string(""), std::string("../etc/passwd"), std::string("photos/../../x"),
        std::string("photos//x"), std::string("./x"), std::string("a\xff"), std::string("a\0b", 3),
        std::string(5000, 'a')}) {
    const std::vector<NewPhoto> batch = {MakePhoto(1, "fine"), MakePhoto(2, path)};
    const auto added = catalog.Add(batch);
    ASSERT_FALSE(added) << EscapeBytes(path);
    EXPECT_EQ(added.error().code, ErrorCode::kInvalidArgument);
  }
  const std::vector<NewPhoto> bad_label = {MakePhoto(1, "fine", {"ok", ""})};
  EXPECT_FALSE(catalog.Add(bad_label));
  EXPECT_EQ(*catalog.LastChange(), 0);
  EXPECT_EQ(*catalog.Counts(), CatalogCounts{});
  EXPECT_EQ(AddOne(catalog, MakePhoto(3, "fine")).number, 1);
}

TEST_F(CatalogTest, LocationsUnderAFolderComeInPages) {
  Catalog catalog = Open();
  for (const auto* path : {"/x/b", "/x/a", "/x/é", "/xa", "/y/a", "/x"}) {
    AddOne(catalog, MakePhoto(static_cast<int>(std::hash<std::string>()(path) % 100000), path));
  }
  std::vector<std::string> paths;
  int64_t after = 0;
  while (true) {
    const auto page = *catalog.LocationsUnder("/x/", after, 2);
    if (page.empty()) break;
    for (const auto& location : page) paths.push_back(location.path);
    after = page.back().row;
  }
  EXPECT_EQ(paths, (std::vector<std::string>{"/x/b", "/x/a", "/x/é"}));
}

TEST_F(CatalogTest, TheChangeLogCannotBeRewritten) {
  {
    Open().Add(std::vector{MakePhoto(1, "a")}).value();
  }
  auto db = sqlite::Database::Open(file_, std::vector<const char*>{"", ""});
  ASSERT_TRUE(db);
  EXPECT_FALSE(db->Run("UPDATE change_log SET path = 'b'"));
  // What is written of a deleted photo cannot be written of one that is there.
  EXPECT_FALSE(db->Run("UPDATE change_log SET kind = 4, path = '', origin = ''"));
  EXPECT_FALSE(db->Run("DELETE FROM change_log"));
  EXPECT_EQ(Open().ReadChanges(0, 10)->at(0).path, "a");
}

TEST_F(CatalogTest, TheStoreIdStaysAndANewerSchemaIsRefused) {
  const std::string id = Open().store_id();
  EXPECT_EQ(id.size(), 32U);
  EXPECT_EQ(Open().store_id(), id);
  {
    auto db = sqlite::Database::Open(file_, std::vector<const char*>{"", ""});
    ASSERT_TRUE(db->Execute("PRAGMA user_version = 99"));
  }
  const auto newer = Catalog::Open(file_);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, ErrorCode::kFailedPrecondition);
}

std::string BytesOf(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Deletion reaches every byte: no file of the catalog holds the text any more.
TEST_F(CatalogTest, ADeletionTakesEveryTextOfThePhotoWithIt) {
  Catalog catalog = Open();
  Catalog daemon = Open();  // another process that holds the same file open
  std::vector<NewPhoto> photos;
  for (int i = 0; i < 400; ++i) {
    photos.push_back(
        MakePhoto(i, fmt::format("/home/visit-{:03}.jpg", i), {fmt::format("person-{:03}", i)}));
    photos.back().origin = fmt::format("place-{:03}", i);
  }
  ASSERT_TRUE(catalog.Add(photos));
  ASSERT_TRUE(catalog.Move("/home/visit-200.jpg", "/home/moved-200.jpg"));
  ASSERT_TRUE(catalog.MarkMissing("/home/moved-200.jpg"));
  ASSERT_TRUE(daemon.Find(201).error().code == ErrorCode::kNotFound);
  const auto before = Value(catalog.ReadChanges(0, 10'000));

  ASSERT_TRUE(catalog.Delete(201));
  ASSERT_TRUE(catalog.Delete(300));
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string bytes = BytesOf(entry.path());
    for (const auto* text : {"visit-200", "moved-200", "place-200", "person-200", "visit-299",
                             "place-299", "person-299"}) {
      EXPECT_EQ(bytes.find(text), std::string::npos) << text << " in " << entry.path();
    }
  }
  EXPECT_NE(BytesOf(file_).find("person-201"), std::string::npos);

  const auto after = Value(daemon.ReadChanges(0, 10'000));
  ASSERT_EQ(after.size(), before.size() + 2);
  for (size_t i = 0; i < after.size(); ++i) {
    ASSERT_EQ(after[i].sequence, static_cast<int64_t>(i) + 1);
    if (after[i].number != 201 && after[i].number != 300) continue;
    EXPECT_EQ(after[i].kind, ChangeKind::kDeleted);
    EXPECT_EQ(after[i].path + after[i].old_path + after[i].origin + after[i].label, "");
    EXPECT_EQ(after[i].id, photos[static_cast<size_t>(after[i].number) - 1].id);
  }
}

TEST_F(CatalogTest, CopiesOfDeletedPhotosAreToBeRemovedUntilTheyAre) {
  Catalog catalog = Open();
  AddOne(catalog, MakePhoto(1, "photos/1.jpg"));
  AddOne(catalog, MakePhoto(1, "/in/place.jpg"));
  AddOne(catalog, MakePhoto(2, "photos/2.jpg"));
  AddOne(catalog, MakePhoto(3, "photos/3.jpg"));
  for (int64_t number = 1; number <= 3; ++number) ASSERT_TRUE(catalog.Delete(number));
  AddOne(catalog, MakePhoto(2, "photos/2.jpg"));  // back again: its copy is needed
  std::vector<std::string> asked;
  const auto refuse_third = [&](const std::string& path) -> Status {
    asked.push_back(path);
    if (path == "photos/3.jpg") return Fail(ErrorCode::kPermissionDenied, "no");
    return {};
  };
  EXPECT_EQ(catalog.SettleRemovals(refuse_third).error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(asked, (std::vector<std::string>{"photos/1.jpg", "photos/3.jpg"}));
  EXPECT_FALSE(catalog.SettleRemovals(refuse_third));
  EXPECT_EQ(asked.size(), 3U);
  EXPECT_EQ(asked.back(), "photos/3.jpg");
  EXPECT_TRUE(Open().SettleRemovals([](const std::string&) { return Status(); }));
  EXPECT_TRUE(catalog.SettleRemovals(refuse_third));
  EXPECT_EQ(asked.size(), 3U);
}

// The schema of the first version, as far as its catalogs differ from an empty one of today.
TEST_F(CatalogTest, ACatalogOfTheFirstSchemaIsBroughtUpToDate) {
  {
    const std::string schema =
        BytesOf(fs::path(NDPIPE_SOURCE_DIR) / "src/ndpipe/photo/testdata/catalog_schema_1.sql");
    ASSERT_FALSE(schema.empty());
    auto db = sqlite::Database::Open(file_, std::vector<const char*>{schema.c_str()});
    ASSERT_TRUE(db) << db.error().message;
    for (int i = 1; i <= 3; ++i) {
      const NewPhoto photo = MakePhoto(i, fmt::format("/x/{}", i));
      ASSERT_TRUE(db->Run("INSERT INTO photo VALUES(?1, ?2, ?3, 0, 1, 1, 0, ?4)", i,
                          std::span<const uint8_t>(photo.id.bytes),
                          static_cast<int64_t>(photo.id.Prefix64()), i == 3));
      ASSERT_TRUE(db->Run("INSERT INTO change_log VALUES(?1, 1, ?1, 0, ?2, '', 'o', '', 1, 1, 1)",
                          i, photo.path));
      if (i == 3) continue;  // deleted, and still in the log
      ASSERT_TRUE(db->Run("INSERT INTO location VALUES(?1, ?1, ?2, ?3, 0, 1, 1, 'o')", i,
                          photo.path, static_cast<int64_t>(Sha256::Of(photo.path).Prefix64())));
    }
    ASSERT_TRUE(db->Run("INSERT INTO store VALUES(1, 'the id', 2, 2, 0, 0, 2)"));
  }
  Catalog catalog = Open();
  EXPECT_EQ(catalog.store_id(), "the id");
  EXPECT_EQ(*catalog.NumberOf(MakePhoto(2, "").id), 2);
  EXPECT_EQ(*catalog.NumberOf(MakePhoto(3, "").id), std::nullopt);
  EXPECT_EQ((*catalog.FindPath("/x/1"))->number, 1);
  EXPECT_FALSE(AddOne(catalog, MakePhoto(1, "/x/1")).is_new_photo);
  EXPECT_EQ(AddOne(catalog, MakePhoto(3, "/x/3")).number, 4);
  const auto changes = Value(catalog.ReadChanges(0, 10));
  EXPECT_EQ(changes[1].path, "/x/2");
  EXPECT_EQ(changes[2].kind, ChangeKind::kDeleted);
  EXPECT_EQ(changes[2].path, "");
}

// More photos than the smallest tier of the indexes holds.
TEST_F(CatalogTest, PhotosAreFoundWhicheverTierTheirKeysAreIn) {
  Catalog catalog = Open();
  constexpr int kPhotos = 12'000;
  std::vector<NewPhoto> batch;
  for (int i = 0; i < kPhotos; ++i) batch.push_back(MakePhoto(i, fmt::format("/p/{}", i)));
  for (size_t at = 0; at < batch.size(); at += 1000) {
    ASSERT_TRUE(catalog.Add(std::span(batch).subspan(at, 1000)));
  }
  for (const auto& outcome : Value(catalog.Add(batch))) ASSERT_FALSE(outcome.is_new_photo);
  for (int i = 0; i < kPhotos; i += 97) {
    ASSERT_EQ(*catalog.NumberOf(batch[static_cast<size_t>(i)].id), i + 1);
    ASSERT_TRUE(catalog.Move(fmt::format("/p/{}", i), fmt::format("/q/{}", i)));
    ASSERT_EQ(*catalog.FindPath(fmt::format("/p/{}", i)), std::nullopt);
    ASSERT_EQ((*catalog.FindPath(fmt::format("/q/{}", i)))->number, i + 1);
    ASSERT_TRUE(catalog.Delete(i + 1));
    ASSERT_EQ(*catalog.FindPath(fmt::format("/q/{}", i)), std::nullopt);
    ASSERT_EQ(*catalog.NumberOf(batch[static_cast<size_t>(i)].id), std::nullopt);
  }
}

TEST_F(CatalogTest, FullTiersMoveUp) {
  constexpr const char* kTable =
      "CREATE TABLE key_entry(run INTEGER, key INTEGER, row INTEGER, PRIMARY KEY(run, key, row))"
      " WITHOUT ROWID";
  auto db = *sqlite::Database::Open(file_, std::vector<const char*>{kTable});
  const auto runs = [&] {
    std::vector<int64_t> counts(6);
    EXPECT_TRUE(db.Query("SELECT run, count(*) FROM key_entry GROUP BY run",
                         [&](const auto& row) { counts.at(row.Int(0)) = row.Int(1); }));
    return counts;
  };
  ASSERT_TRUE(AddKey(db, KeyKind::kId, 9, 1));
  ASSERT_TRUE(AddKey(db, KeyKind::kId, -9, 2));
  ASSERT_TRUE(AddKey(db, KeyKind::kPath, 9, 1));
  ASSERT_TRUE(MergeKeys(db, 5, 100));
  EXPECT_EQ(runs(), (std::vector<int64_t>{0, 0, 0, 0, 2, 1}));
  ASSERT_TRUE(MergeKeys(db, 16'000, 17'000));
  EXPECT_EQ(runs(), (std::vector<int64_t>{0, 0, 2, 1, 0, 0}));
  ASSERT_TRUE(AddKey(db, KeyKind::kId, 9, 3));
  ASSERT_TRUE(MergeKeys(db, 262'000, 263'000));
  EXPECT_EQ(runs(), (std::vector<int64_t>{2, 1, 1, 0, 0, 0}));
  ASSERT_TRUE(RemoveKey(db, KeyKind::kId, 9, 1));
  ASSERT_TRUE(RemoveKey(db, KeyKind::kId, 9, 3));
  EXPECT_EQ(runs(), (std::vector<int64_t>{1, 1, 0, 0, 0, 0}));
}

// What a catalog must do, in plain containers.
struct ReferencePhoto {
  PhotoId id;
  Part part = Part::kTrain;
  int64_t size_bytes = 0;
  std::set<std::string> labels;
  std::map<std::string, LocationState> locations;
  bool deleted = false;

  bool IsPresent() const {
    return std::ranges::any_of(
        locations, [](const auto& entry) { return entry.second == LocationState::kPresent; });
  }
};

class Reference {
 public:
  void Add(const NewPhoto& photo) {
    for (auto& other : photos_) {
      const auto at = other.locations.find(photo.path);
      if (other.id != photo.id && at != other.locations.end() &&
          at->second == LocationState::kPresent) {
        at->second = LocationState::kChanged;
      }
    }
    auto found = std::ranges::find_if(
        photos_, [&](const auto& known) { return known.id == photo.id && !known.deleted; });
    if (found == photos_.end()) {
      photos_.push_back({.id = photo.id,
                         .part = TrainOrHeldOut(photo.id),
                         .size_bytes = photo.size_bytes,
                         .labels = {},
                         .locations = {}});
      found = photos_.end() - 1;
    }
    if (photo.is_test) found->part = Part::kTest;
    found->labels.insert(photo.labels.begin(), photo.labels.end());
    found->locations[photo.path] = LocationState::kPresent;
  }
  void Withdraw(const std::string& path, LocationState state) {
    if (ReferencePhoto* photo = Holder(path)) photo->locations[path] = state;
  }
  void Move(const std::string& from, const std::string& to) {
    ReferencePhoto* photo = Holder(from);
    if (photo == nullptr || Holder(to) != nullptr) return;
    photo->locations.erase(from);
    photo->locations[to] = LocationState::kPresent;
  }
  void Delete(int64_t number) {
    if (number < 1 || number > static_cast<int64_t>(photos_.size())) return;
    ReferencePhoto& photo = photos_[number - 1];
    photo.deleted = true;
    photo.labels.clear();
    photo.locations.clear();
  }
  CatalogCounts Counts() const {
    CatalogCounts counts;
    for (const auto& photo : photos_) {
      if (photo.deleted) continue;
      ++counts.photos;
      for (const auto& [path, state] : photo.locations) {
        counts.locations += state == LocationState::kPresent ? 1 : 0;
      }
      counts.missing += photo.IsPresent() ? 0 : 1;
      counts.labelled += photo.labels.empty() ? 0 : 1;
      counts.bytes += photo.IsPresent() ? photo.size_bytes : 0;
    }
    return counts;
  }
  const std::vector<ReferencePhoto>& photos() const { return photos_; }
  ReferencePhoto* Holder(const std::string& path) {
    for (auto& photo : photos_) {
      const auto at = photo.locations.find(path);
      if (at != photo.locations.end() && at->second == LocationState::kPresent) return &photo;
    }
    return nullptr;
  }

 private:
  std::vector<ReferencePhoto> photos_;  // photo n at n − 1
};

// What a reader of the change log makes of it: who lies where, and which labels are known.
struct Replay {
  std::map<int64_t, std::set<std::string>> present;
  std::map<int64_t, std::set<std::string>> labels;
  std::map<int64_t, Part> parts;
  std::set<int64_t> deleted;

  void Apply(const Change& change) {
    switch (change.kind) {
      case ChangeKind::kAdded:
        present[change.number].insert(change.path);
        parts[change.number] = change.part;
        break;
      case ChangeKind::kChanged:
      case ChangeKind::kMissing:
        present[change.number].erase(change.path);
        break;
      case ChangeKind::kMoved:
        present[change.number].erase(change.old_path);
        present[change.number].insert(change.path);
        break;
      case ChangeKind::kDeleted:
        deleted.insert(change.number);
        present.erase(change.number);
        labels.erase(change.number);
        break;
      case ChangeKind::kSourceLabel:
        labels[change.number].insert(change.label);
        break;
    }
  }
};

void ExpectSame(Catalog& catalog, const Reference& reference) {
  ASSERT_EQ(*catalog.Counts(), reference.Counts());
  Replay replay;
  int64_t sequence = 0;
  for (const Change& change : Value(catalog.ReadChanges(0, 1'000'000))) {
    ASSERT_EQ(change.sequence, ++sequence);
    replay.Apply(change);
  }
  ASSERT_EQ(*catalog.LastChange(), sequence);
  std::vector<int64_t> numbers;
  for (size_t i = 0; i < reference.photos().size(); ++i) {
    const auto number = static_cast<int64_t>(i) + 1;
    const ReferencePhoto& photo = reference.photos()[i];
    ASSERT_EQ(replay.deleted.contains(number), photo.deleted);
    if (photo.deleted) continue;
    std::set<std::string> present;
    for (const auto& [path, state] : photo.locations) {
      if (state == LocationState::kPresent) present.insert(path);
    }
    if (!present.empty()) numbers.push_back(number);
    ASSERT_EQ(replay.present[number], present);
    ASSERT_EQ(replay.labels[number], photo.labels);
    ASSERT_EQ(replay.parts[number], photo.part);
    ASSERT_EQ(*catalog.PartOf(number), photo.part);
    ASSERT_EQ(*catalog.NumberOf(photo.id), number);
    std::set<std::string> located;
    for (const auto& location : Value(catalog.Locations(number))) located.insert(location.path);
    ASSERT_EQ(located, present);
    const auto labels = *catalog.SourceLabels(number);
    ASSERT_EQ(std::set<std::string>(labels.begin(), labels.end()), photo.labels);
  }
  ASSERT_EQ(*catalog.Numbers(0, 1'000'000), numbers);
}

TEST_F(CatalogTest, BehavesLikePlainContainersUnderRandomOperations) {
  Catalog catalog = Open();
  ASSERT_TRUE(catalog.Add({}));
  Reference reference;
  std::mt19937_64 random(20261123);
  const auto draw = [&](int count) { return static_cast<int>(random() % count); };
  const auto path = [&] { return fmt::format("/p/{}", draw(12)); };
  // A reader that keeps up: what it read before a deletion was there then.
  Replay follower;
  int64_t followed = 0;
  for (int step = 0; step < 600; ++step) {
    const int operation = draw(10);
    if (operation < 5) {
      std::vector<NewPhoto> batch;
      for (int i = draw(4); i >= 0; --i) {
        std::vector<std::string> labels;
        for (int j = draw(3); j > 0; --j) labels.push_back(fmt::format("label {}", draw(4)));
        batch.push_back(MakePhoto(draw(15), path(), labels, draw(6) == 0));
      }
      ASSERT_TRUE(catalog.Add(batch));
      for (const NewPhoto& photo : batch) reference.Add(photo);
    } else if (operation == 5) {
      const std::string at = path();
      EXPECT_EQ(catalog.MarkMissing(at).has_value(), reference.Holder(at) != nullptr);
      reference.Withdraw(at, LocationState::kMissing);
    } else if (operation == 6) {
      const std::string at = path();
      EXPECT_EQ(catalog.MarkChanged(at).has_value(), reference.Holder(at) != nullptr);
      reference.Withdraw(at, LocationState::kChanged);
    } else if (operation < 9) {
      const std::string from = path();
      const std::string to = path();
      (void)catalog.Move(from, to);
      reference.Move(from, to);
    } else {
      const int number = draw(40);
      (void)catalog.Delete(number);
      reference.Delete(number);
    }
    for (const Change& change : Value(catalog.ReadChanges(followed, draw(20)))) {
      ASSERT_EQ(change.sequence, ++followed);
      follower.Apply(change);
    }
    if (step % 25 == 0) {
      ASSERT_NO_FATAL_FAILURE(ExpectSame(catalog, reference));
    }
  }
  ExpectSame(catalog, reference);
  Replay late;
  for (const Change& change : Value(catalog.ReadChanges(0, 1'000'000))) {
    late.Apply(change);
    if (change.sequence > followed) follower.Apply(change);
  }
  for (Replay* replay : {&follower, &late}) {
    std::erase_if(replay->present, [](const auto& entry) { return entry.second.empty(); });
  }
  EXPECT_EQ(follower.present, late.present);
  EXPECT_EQ(follower.labels, late.labels);
  EXPECT_EQ(follower.deleted, late.deleted);
}

// Forks a process that runs `body` and exits with its result.
pid_t Fork(const std::function<bool()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body() ? 0 : 1);
  return pid;
}

TEST_F(CatalogTest, ProcessesThatWriteAtOnceBothSucceed) {
  constexpr int kBatches = 40;
  std::vector<pid_t> children;
  for (int child = 0; child < 3; ++child) {
    // The catalog does not exist yet: they also race to create it.
    children.push_back(Fork([&, child] {
      auto catalog = Catalog::Open(file_);
      for (int batch = 0; catalog && batch < kBatches; ++batch) {
        std::vector<NewPhoto> photos;
        for (int i = 0; i < 10; ++i) {
          const int own = child * 10000 + batch * 10 + i;
          photos.push_back(MakePhoto(own, fmt::format("/own/{}", own)));
          photos.push_back(
              MakePhoto(-batch * 10 - i - 1, fmt::format("/shared/{}", batch * 10 + i), {"label"}));
        }
        if (!catalog->Add(photos)) return false;
      }
      return catalog.has_value();
    }));
  }
  for (const pid_t pid : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  Catalog catalog = Open();
  const int64_t photos = 3 * kBatches * 10 + kBatches * 10;
  EXPECT_EQ(catalog.Counts()->photos, photos);
  EXPECT_EQ(catalog.Counts()->locations, photos);
  EXPECT_EQ(*catalog.LastChange(), photos + kBatches * 10);
  int64_t sequence = 0;
  for (const Change& change : Value(catalog.ReadChanges(0, 10'000))) {
    ASSERT_EQ(change.sequence, ++sequence);
  }
}

}  // namespace
}  // namespace ndpipe::photo
